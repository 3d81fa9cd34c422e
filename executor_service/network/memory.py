"""Memory that C libraries have freed, and the C library keeps in case they want it again. malloc_trim(3)"""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back_memory() -> None:
    """To the kernel. Takes some milliseconds, without the interpreter's lock; does nothing where libc has no such."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
