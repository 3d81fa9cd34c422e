"""The keys that end an attachment: `ctrl-p,ctrl-q`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.errors import Violation

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"

_CONTROL = re.compile(r"ctrl-([a-z@\[\\\]^_])")


def validate_detach_keys(text: str, field: str) -> list[Violation]:
    """Empty means the default."""
    if not text or parse_detach_keys(text) is not None:
        return []
    why = (
        f"{text!a} is not a sequence of keys: write single characters or ctrl- and one of a-z @ [ \\ ] ^ _, joined by "
        "commas, for example 'ctrl-p,ctrl-q'"
    )
    return [Violation(field=field, description=why)]


def parse_detach_keys(text: str) -> bytes | None:
    """The bytes a terminal sends for the keys; None when they are not understood."""
    keys = bytearray()
    for key in text.split(","):
        if (match := _CONTROL.fullmatch(key)) is not None:
            # A terminal sends the character's place in its block of 32: ctrl-a is 1, ctrl-@ is 0.
            keys.append(ord(match[1]) & 0x1F)
        elif len(key) == 1 and key.isascii():
            keys += key.encode()
        else:
            return None
    return bytes(keys)


@dataclass(slots=True)
class KeyScanner:
    """Looks for the keys in what is typed, across the borders of messages. A beginning of them is held back until it
    is known to be no more than that."""

    keys: bytes
    _seen: int = 0

    def scan(self, data: bytes) -> tuple[bytes, bool]:
        """What may go on to the process, and whether the keys are complete; what comes after them is dropped."""
        if not self._seen and self.keys[0] not in data:
            return data, False
        out = bytearray()
        for byte in data:
            if byte != self.keys[self._seen]:
                out += self.keys[: self._seen]
                self._seen = 0
            if byte == self.keys[self._seen]:
                self._seen += 1
                if self._seen == len(self.keys):
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False
