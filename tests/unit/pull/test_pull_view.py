"""What a person sees of a pull."""

from __future__ import annotations

import io
import os
import pty
import struct
import termios
from contextlib import suppress
from fcntl import ioctl

import pytest
from slipway.v1 import image_service_pb2 as pb

from tests.pull.view import View, line

MIB = 1 << 20
FIRST, SECOND = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def progress(digest: str, phase: pb.LayerPhase.ValueType, done: int = 0, retries: int = 0) -> pb.LayerProgress:
    return pb.LayerProgress(digest=digest, phase=phase, done=done, total=8 * MIB, retries=retries)


def _shown(master: int) -> str:
    """All of it, once the other end is closed; a read has what was there at the moment."""
    data = b""
    with suppress(OSError):  # EIO, the end
        while piece := os.read(master, 65536):
            data += piece
    os.close(master)
    return data.decode()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (progress(FIRST, pb.LAYER_PHASE_WAITING), "aaaaaaaaaaaa  waiting      8.0 MiB"),
        (
            progress(FIRST, pb.LAYER_PHASE_DOWNLOADING, done=2 * MIB, retries=1),
            "aaaaaaaaaaaa  downloading  [======>                 ]  2.0 of 8.0 MiB  1 retry",
        ),
        (
            progress(FIRST, pb.LAYER_PHASE_DOWNLOADING, done=8 * MIB, retries=2),
            f"aaaaaaaaaaaa  downloading  [{'=' * 24}]  8.0 of 8.0 MiB  2 retries",
        ),
    ],
)
def test_a_layer_is_one_line(state: pb.LayerProgress, expected: str) -> None:
    assert line(state) == expected


def test_without_a_terminal_phases_are_lines() -> None:
    out = io.StringIO()
    view = View(out)
    view.show(progress(FIRST, pb.LAYER_PHASE_WAITING))
    for done in range(4):
        view.show(progress(FIRST, pb.LAYER_PHASE_DOWNLOADING, done=done * MIB))
    view.show(progress(FIRST, pb.LAYER_PHASE_DONE, done=8 * MIB))
    assert [each.split()[1] for each in out.getvalue().splitlines()] == ["waiting", "downloading", "done"]


def test_on_a_terminal_each_layer_keeps_its_line() -> None:
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(slave, "w") as out:
        view = View(out)
        for digest in (FIRST, SECOND):
            view.show(progress(digest, pb.LAYER_PHASE_WAITING))
        view.show(progress(FIRST, pb.LAYER_PHASE_DOWNLOADING, done=MIB))
    shown = _shown(master)
    assert shown.split("\x1b[2A")[-1].splitlines() == [
        line(progress(FIRST, pb.LAYER_PHASE_DOWNLOADING, done=MIB))[:59] + "\x1b[K",
        line(progress(SECOND, pb.LAYER_PHASE_WAITING)) + "\x1b[K",
    ]
    assert shown.count("\x1b[1A") == 1


def test_what_does_not_fit_leaves_those_that_move() -> None:
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 80, 0, 0))
    with os.fdopen(slave, "w") as out:
        view = View(out)
        view.show(progress(FIRST, pb.LAYER_PHASE_DOWNLOADING, done=MIB))
        for letter in "cdef":
            view.show(progress("sha256:" + letter * 64, pb.LAYER_PHASE_WAITING))
    shown = _shown(master)
    last = shown.split("\x1b[2A")[-1].splitlines()
    assert [each[:12] for each in last] == ["f" * 12, "a" * 12]
