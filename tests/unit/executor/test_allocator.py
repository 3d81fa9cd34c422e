"""The arenas of glibc's malloc in a process that keeps little, counted by itself."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

import pytest

from executor_service.allocator import keep_little

_THREADS = 6


@pytest.mark.parametrize(("prepare", "most"), [("keep_little", 2), ("leave", _THREADS + 1)])
def test_threads_share_two_arenas(prepare: str, most: int) -> None:
    done = subprocess.run([sys.executable, "-m", __name__, prepare], check=True, capture_output=True, text=True)
    arenas = int(done.stdout)
    assert arenas <= most
    assert prepare == "keep_little" or arenas > 2, "or this proves nothing"


def _count_arenas(prepare: Callable[[], None]) -> int:
    """With `_THREADS` threads that have all allocated."""
    prepare()
    allocated = threading.Barrier(_THREADS + 1)
    threads = [threading.Thread(target=_allocate, args=[allocated]) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    allocated.wait()
    with tempfile.NamedTemporaryFile() as report:
        libc = ctypes.CDLL(None)
        libc.fdopen.restype = ctypes.c_void_p
        stream = ctypes.c_void_p(libc.fdopen(os.dup(report.fileno()), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        report.seek(0)  # the offset is shared
        arenas = report.read().count(b"<heap nr=")
    allocated.wait()
    return arenas


def _allocate(allocated: threading.Barrier) -> None:
    held = bytearray(1 << 16)
    allocated.wait()
    allocated.wait()
    del held


if __name__ == "__main__":
    print(_count_arenas({"keep_little": keep_little, "leave": lambda: None}[sys.argv[1]]))
