"""How storage says no to hostile or broken images."""

from __future__ import annotations

from common.errors import InvalidArgument, ResourceExhausted


def corrupt_image(message: str) -> InvalidArgument:
    """The archive is malformed, a digest differs or an entry is hostile."""
    return InvalidArgument(message, reason="CORRUPT_IMAGE")


def took_too_long() -> ResourceExhausted:
    return ResourceExhausted("image: unpacking a layer took longer than this node allows", reason="TIMEOUT")


def shown(name: bytes) -> str:
    """A name out of an archive as it may stand in a message: quoted, escaped, not longer than a line."""
    text = name.decode(errors="backslashreplace")
    return repr(text if len(text) <= 120 else text[:117] + "...")


def word(value: object) -> str:
    """Something out of a JSON document that should be a word, as it may stand in a message whatever it is."""
    return ascii(value[:60])[1:-1] if isinstance(value, str) else "?"
