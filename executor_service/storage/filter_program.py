"""The program that a layer goes through on its way to GNU tar: unpacks, hashes, filters and records it.

It is a process of its own, so that a layer has a processor for itself, and so that what reads hostile bytes holds
nothing: it is nobody, has four descriptors and can open no other. Bytes come from the archive, go to tar and to the
record; whatever else there is to say goes through the socket `control`, a line of JSON each, the other side of which is
`filter_process`:

    ["room"]                               more is about to be unpacked; answered with one byte
    ["count", SIZE, ENTRIES]               what there is of the layer with what comes next; answered with one byte
    ["passed", {...}]                      tar has everything; the fields of `Passed`
    ["opaque", NAME]                       of a directory, its bytes as Latin-1
    ["time", NAME, SECONDS, NANOSECONDS]   of a directory
    ["end"]
    ["refused", CLASS, MESSAGE, REASON]    an error of `common.errors`, instead of what was to come
    ["failed", ERRNO, MESSAGE]             an OSError

It is started for each layer, so it imports little.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import BinaryIO

from common.errors import ResourceExhausted, SlipwayError
from executor_service.storage.layer_filter import LayerFilter
from executor_service.storage.refusals import corrupt_image
from executor_service.storage.streams import HashingSource, Window, decompressed
from executor_service.storage.tar_record import TarRecorder

PIPE_BUFFER = 1 << 18  # bytes of one write to tar
NOBODY = 65534
_REFILLS = 4  # of a quarter of a MiB each, from one question for room to the next
_COUNTED_BYTES, _COUNTED_ENTRIES = 1 << 20, 1024  # more than that is told before it passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`size` bytes of the archive from `offset` are the layer; `digest` is that of these bytes, when one is stated.
    What its tar may have, and how many bytes of memory this may take."""

    offset: int
    size: int
    digest: str | None
    max_bytes: int
    max_entries: int
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What came of it: the digest and the bytes of its tar, and the rest as in `Filtered`."""

    diff_id: str
    tar_size: int
    size: int
    entries: int
    ended: bool
    overwritten: bool


class _AbandonedError(Exception):
    """The executor does not want it any more, or is gone."""


class Control:
    """This side of the conversation. Room is asked for ahead, so that nobody waits for the answer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = os.fdopen(descriptor, "wb")
        self._refills = 0
        self._unanswered = 0
        self._counted = (0, 0)

    def check(self) -> None:
        """With every refill. Raises _AbandonedError."""
        if self._refills % _REFILLS == 0:
            self._agreed()
            self._ask("room")
        self._refills += 1

    def count(self, size: int, entries: int) -> None:
        """Of what passed and is to pass next. Raises _AbandonedError."""
        bytes_before, entries_before = self._counted
        if size - bytes_before >= _COUNTED_BYTES or entries - entries_before >= _COUNTED_ENTRIES:
            self._counted = (size, entries)
            self._ask("count", size, entries)
            self._agreed()

    def _ask(self, *words: object) -> None:
        self.say(*words)
        self.flush()
        self._unanswered += 1

    def _agreed(self) -> None:
        while self._unanswered:
            answers = os.read(self._descriptor, self._unanswered)
            if not answers:
                raise _AbandonedError
            self._unanswered -= len(answers)

    def say(self, *words: object) -> None:
        self._lines.write(json.dumps(words).encode() + b"\n")

    def flush(self) -> None:
        self._lines.flush()


def main(order: Order, control: int, archive: int, record: int, tar: int | None = None) -> None:
    """The numbers are those of open descriptors. Without `tar` nothing is filtered, and the record gets the contents of
    all files."""
    give_up_everything(order.memory)
    said = Control(control)
    with (
        os.fdopen(archive, "rb", buffering=0) as source,
        os.fdopen(record, "wb") as recorded,
        suppress(_AbandonedError, BrokenPipeError),
    ):
        try:
            if tar is None:
                _record_whole(order, source, recorded, said)
            else:
                _pass(order, source, recorded, tar, said)
            said.say("end")
        except (SlipwayError, MemoryError, OSError) as error:
            _tell(error, order, said)
        said.flush()


def give_up_everything(memory: int) -> None:
    """From here on there are no privileges, nothing can be opened, and no more memory be had than is needed."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _pass(order: Order, archive: BinaryIO, record: BinaryIO, tar: int, control: Control) -> None:
    algorithm, _, stated = (order.digest or "").partition(":")
    window = Window(archive, offset=order.offset, size=order.size, algorithm=algorithm or None)
    with os.fdopen(tar, "wb", buffering=PIPE_BUFFER) as pipe:
        with decompressed(window) as stream:
            source = TarRecorder(HashingSource(stream, max_bytes=order.max_bytes, check=control.check), record)
            filtered = LayerFilter(
                source, pipe.write, max_entries=order.max_entries, content=source.content, count=control.count
            ).run()
            diff_id = source.finish()
        record.flush()
        pipe.flush()
        if order.digest and (actual := window.digest()) != stated:
            raise corrupt_image(f"layer: the blob {order.digest} has the digest {algorithm}:{actual}")
    passed = Passed(
        diff_id=diff_id,
        tar_size=source.size,
        size=filtered.size,
        entries=filtered.entries,
        ended=filtered.ended,
        overwritten=filtered.overwritten,
    )
    control.say("passed", asdict(passed))
    control.flush()
    for name in filtered.opaque:
        control.say("opaque", name.decode("latin-1"))
    for name, (seconds, nanoseconds) in filtered.times.items():
        control.say("time", name.decode("latin-1"), seconds, nanoseconds)


def _record_whole(order: Order, archive: BinaryIO, record: BinaryIO, control: Control) -> None:
    with decompressed(Window(archive, offset=order.offset, size=order.size)) as stream:
        TarRecorder(HashingSource(stream, max_bytes=order.max_bytes, check=control.check), record).finish()
    record.flush()


def _tell(error: SlipwayError | MemoryError | OSError, order: Order, control: Control) -> None:
    if isinstance(error, OSError):
        control.say("failed", error.errno, error.strerror)
        return
    if isinstance(error, MemoryError):
        error = ResourceExhausted(
            f"image: a layer needs more than {order.memory >> 20} MiB of memory to be unpacked, the limit of this node",
            reason="IMAGE_TOO_LARGE",
        )
    control.say("refused", type(error).__name__, error.message, error.reason)


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])), *map(int, sys.argv[2:]))
