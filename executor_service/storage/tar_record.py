"""What a layer's tar holds besides the contents of its files, so that the very bytes it came as can be made again.

The unpacked layer has the contents; the record has every other byte, headers, padding and whatever else there was, and
says after which of them the content of which file comes. It is a stream, compressed with zstd, of parts: `L`, a length
and so many bytes; `F`, the size and the length of the name of a file, and its name. What containers/storage and
dockerd keep for the same reason: https://github.com/vbatts/tar-split.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from common.errors import DataLoss
from executor_service.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from executor_service.storage.refusals import corrupt_image, shown
from executor_service.storage.streams import HashingSource

if TYPE_CHECKING:
    from pathlib import Path

_LITERAL = struct.Struct(">cQ")
_FILE = struct.Struct(">cQI")
_CHUNK = 1 << 18  # bytes
_MAX_NAME = 4096  # bytes
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO})


class TarRecorder:
    """A `ByteSource` that records into `file` what is read through it. To be closed by `finish`."""

    def __init__(self, source: HashingSource, file: BinaryIO) -> None:
        self._source = source
        self._packer = zstandard.ZstdCompressor().stream_writer(file, closefd=False)
        self._literal = bytearray()
        self._parts = bytearray()
        self._skipping = False
        self.size = 0  # bytes of the tar, so far

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.size += len(data)
        if not self._skipping:
            self._literal += data
            if len(self._literal) >= _CHUNK:
                self._end_literal()
        return data

    def skip(self, size: int) -> None:
        while size:
            data = self.read(min(size, _CHUNK))
            if not data:
                raise corrupt_image("tar: truncated within a member")
            size -= len(data)

    @contextmanager
    def content(self, name: bytes, size: int) -> Iterator[None]:
        """Within the block the content of a file is read, which the unpacked layer will have."""
        self._end_literal()
        self._parts += _FILE.pack(b"F", size, len(name)) + name
        self._skipping = True
        yield
        self._skipping = False

    def finish(self) -> str:
        """Records the rest; returns the digest of the whole tar, `sha256:<hex>`."""
        while self.read(_CHUNK):
            pass
        self._end_literal()
        self._packer.write(self._parts)
        self._packer.flush(zstandard.FLUSH_FRAME)
        return self._source.digest()

    def _end_literal(self) -> None:
        if self._literal:
            self._parts += _LITERAL.pack(b"L", len(self._literal)) + self._literal
            self._literal.clear()
        if len(self._parts) >= _CHUNK:
            self._packer.write(self._parts)
            self._parts.clear()


def recorded_tar(record: Path, tree: Path, diff_id: str) -> Generator[bytes]:
    """The tar again, in pieces; blocks. The last one comes only when all together have the digest `diff_id`. Raises
    DataLoss (`LAYER_DAMAGED`) when they have not, or what is needed is not there any more, and OSError."""
    hashed = hashlib.sha256()
    held = b""
    for piece in _pieces(record, tree, diff_id):
        hashed.update(piece)
        if held:
            yield held
        held = piece
    if (actual := f"sha256:{hashed.hexdigest()}") != diff_id:
        raise _damaged(diff_id, f"its files now make {actual}")
    yield held


def _pieces(record: Path, tree: Path, diff_id: str) -> Iterator[bytes]:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with record.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, closefd=False) as packed:
            stream = io.BufferedReader(cast("io.RawIOBase", packed), _CHUNK)
            buffer = bytearray()
            for piece in _parts(cast("BinaryIO", stream), root):
                buffer += piece
                if len(buffer) >= _CHUNK:
                    yield bytes(buffer)
                    buffer.clear()
            if buffer:
                yield bytes(buffer)
    except (ValueError, EOFError, FileNotFoundError, zstandard.ZstdError, struct.error) as error:
        raise _damaged(diff_id, str(error)) from error
    finally:
        os.close(root)


def _parts(stream: BinaryIO, root: int) -> Iterator[bytes]:
    while kind := stream.read(1):
        if kind == b"L":
            (left,) = struct.unpack(">Q", stream.read(8))
            while left:
                data = stream.read(min(left, _CHUNK))
                if not data:
                    raise EOFError("the record of its tar is cut short")
                left -= len(data)
                yield data
        elif kind == b"F":
            size, length = struct.unpack(">QI", stream.read(12))
            if length > _MAX_NAME:
                raise ValueError("the record of its tar is damaged")
            yield from _content(root, stream.read(length), size)
        else:
            raise ValueError("the record of its tar is damaged")


def _content(root: int, name: bytes, size: int) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = openat2(root, name, flags=flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        raise ValueError(f"{shown(name)} is not the file that was unpacked") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise ValueError(f"{shown(name)} is not the file of {size} bytes that was unpacked")
        while data := os.read(descriptor, _CHUNK):
            yield data
    finally:
        os.close(descriptor)


def _damaged(diff_id: str, why: str) -> DataLoss:
    return DataLoss(
        f"layer {diff_id}: it cannot be given out as it came: {why}; remove every image that has it, and pull or load "
        "them again",
        reason="LAYER_DAMAGED",
    )
