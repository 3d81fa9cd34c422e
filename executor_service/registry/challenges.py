"""What a registry asks for with `WWW-Authenticate`. Source: RFC 9110, section 11.6.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_MAX_HEADER = 16 << 10  # characters
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = r'(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^\s,"]++))'
_PART = re.compile(rf"[\s,]*+(?:(?P<name>{_WORD})\s*+=\s*+{_VALUE}|(?P<scheme>{_WORD}))", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """`scheme` and the names of `parameters` are lower-case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """All of them in their order, several in one header or in several; what cannot be read ends its header."""
    return [challenge for header in headers for challenge in _challenges(header[:_MAX_HEADER])]


def _challenges(header: str) -> Iterator[Challenge]:
    scheme, parameters, position = "", dict[str, str](), 0
    while part := _PART.match(header, position):
        position = part.end()
        if part["scheme"]:
            if scheme:
                yield Challenge(scheme=scheme, parameters=parameters)
            scheme, parameters = part["scheme"].lower(), {}
        elif scheme:
            value = part["plain"] if part["quoted"] is None else _ESCAPED.sub(r"\1", part["quoted"])
            parameters.setdefault(part["name"].lower(), value)
    if scheme:
        yield Challenge(scheme=scheme, parameters=parameters)
