"""How storage says no: hostile or broken images, and a disk that will not take more."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import InvalidArgument, ResourceExhausted

_EXHAUSTED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS})


def corrupt_image(message: str) -> InvalidArgument:
    """The archive is malformed, a digest differs or an entry is hostile."""
    return InvalidArgument(message, reason="CORRUPT_IMAGE")


def shown(name: bytes) -> str:
    """A name out of an archive as it may stand in a message: quoted, escaped, not longer than a line."""
    text = name.decode(errors="backslashreplace")
    return repr(text if len(text) <= 120 else text[:117] + "...")


def word(value: object) -> str:
    """Something out of a JSON document that should be a word, as it may stand in a message whatever it is."""
    return ascii(value[:60])[1:-1] if isinstance(value, str) else "?"


def is_exhausted(error: OSError) -> bool:
    return error.errno in _EXHAUSTED


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turns a full or read-only disk, missing descriptors or missing memory into ResourceExhausted."""
    try:
        yield
    except OSError as error:
        if is_exhausted(error):
            raise ResourceExhausted(f"{doing}: {error.strerror}; free some and try again") from error
        raise
