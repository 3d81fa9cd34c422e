"""Whether somebody listens on a unix socket."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.addresses import is_listened_on


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(0)
        yield listening


def test_somebody(listening: socket.socket) -> None:
    assert is_listened_on(f"unix://{listening.getsockname()}")


def test_somebody_who_accepts_nobody_now(listening: socket.socket) -> None:
    with ExitStack() as stack:
        full = False
        while not full:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            try:
                waiting.connect(listening.getsockname())
            except BlockingIOError:
                full = True
        assert is_listened_on(f"unix://{listening.getsockname()}")


def test_nobody_any_more(listening: socket.socket) -> None:
    path = listening.getsockname()
    listening.close()
    assert Path(path).exists()
    assert not is_listened_on(f"unix://{path}")


def test_nobody_can_be_asked(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    address = f"unix://{listening.getsockname()}"
    monkeypatch.setattr("common.addresses.socket.socket", exhausted)
    assert not is_listened_on(address)


def test_nobody_yet(tmp_path: Path) -> None:
    assert not is_listened_on(f"unix://{tmp_path}/s")
    assert not is_listened_on(f"unix://{tmp_path}/{'s' * 200}")
    assert not is_listened_on("127.0.0.1:1")
