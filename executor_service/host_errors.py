"""What a refusal of the kernel means to a caller. Source: errno(3)"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import ResourceExhausted, SlipwayError, Unavailable

_EXHAUSTED = {
    errno.ENOSPC: "the disk is full; free space",
    errno.EDQUOT: "the disk quota is used up; free space",
    errno.EMFILE: "the executor has no file descriptors left; raise its limit (LimitNOFILE=) or run fewer containers",
    errno.ENFILE: "the host has no file descriptors left; raise fs.file-max",
    errno.ENOMEM: "the host has no memory left; free some",
    errno.EAGAIN: "the host allows no more processes or threads; raise pids.max or kernel.pid_max",
}
_UNAVAILABLE = {
    errno.EROFS: "the file system is read-only; look at the disk and the kernel's log",
    errno.EIO: "the disk has an error; look at the kernel's log",
}


def host_error(error: OSError, doing: str) -> SlipwayError | None:
    """The error to answer with; None when this errno is no shortage of the host but a bug or a case of its own."""
    named = f"{doing}: {error.filename}: " if error.filename else f"{doing}: "
    if error.errno in _EXHAUSTED:
        return ResourceExhausted(named + _EXHAUSTED[error.errno], metadata={"errno": errno.errorcode[error.errno]})
    if error.errno in _UNAVAILABLE:
        return Unavailable(named + _UNAVAILABLE[error.errno], metadata={"errno": errno.errorcode[error.errno]})
    return None


@contextmanager
def host_errors(doing: str) -> Iterator[None]:
    """Raise what `host_error` says; everything else passes."""
    try:
        yield
    except OSError as error:
        known = host_error(error, doing)
        if known is None:
            raise
        raise known from error
