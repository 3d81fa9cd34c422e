"""What glibc's malloc keeps of memory that was given back. By default each thread gets an arena of its own, up to eight
a core, and keeps in it what one pull's buffers needed: that was 50 MiB of a pull, for good.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_OPTIONS = (
    (_M_ARENA_MAX, 2),  # Python's threads wait for each other anyhow
    # A threshold that is given does not grow with the largest buffer ever freed.
    (_M_MMAP_THRESHOLD, 1 << 20),
    (_M_TRIM_THRESHOLD, 2 << 20),
)


def keep_little() -> None:
    """For this process, from here on; to be called before there are threads. Other C libraries are left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _OPTIONS:
            mallopt(ctypes.c_int(option), ctypes.c_int(value))
