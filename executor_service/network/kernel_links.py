"""pyroute2's way to the kernel's links, addresses and routes, off the path of a container's start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]  # the package ships no types


@contextmanager
def open_kernel() -> Iterator[IPRoute]:
    """In the calling thread's network namespace. What the kernel refuses is an OSError, as everywhere else: pyroute2's
    own error is none. Blocks."""
    try:
        with IPRoute() as kernel:
            yield kernel
    except NetlinkError as error:
        raise OSError(error.code, str(error.args[-1])) from error
