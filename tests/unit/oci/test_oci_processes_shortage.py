from __future__ import annotations

import errno
import os

import pytest

from executor_service.oci.processes import open_process, read_process, send_signal
from executor_service.oci.runtime import Process


def test_a_lack_of_descriptors_is_not_taken_for_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    process = read_process(os.getpid())
    assert process is not None

    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    for ask in (open_process, lambda process: send_signal(process, 0)):
        with pytest.raises(OSError, match="Too many open files"):
            ask(process)


def test_no_process_is_an_end() -> None:
    assert open_process(Process(pid=0, start_time=0)) is None
    assert open_process(Process(pid=2**22 + 1, start_time=0)) is None
