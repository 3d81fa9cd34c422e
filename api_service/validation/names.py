"""Container names and ids: the draw, and names made up for containers that were given none. The rule that a given name
follows stands in the protocol."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from api_service.validation.name_words import ADJECTIVES, SURNAMES

NAME_ATTEMPTS = 6
"""Generated names to try before the short id serves as the name."""

SHORT_ID_LENGTH = 12

_REFUSED_NAMES = frozenset({"boring_wozniak"})  # Docker's one exception: Steve Wozniak is not boring


def strip_name(name: str) -> str:
    """The name as it is stored and compared: without the one leading slash that Docker's clients may send."""
    return name.removeprefix("/")


def generate_id(*, token_hex: Callable[[int], str] = secrets.token_hex) -> str:
    """64 lower-hex characters. The short id is never a number, which programs would take it for (as a host name)."""
    while True:
        drawn = token_hex(32)
        if not drawn[:SHORT_ID_LENGTH].isdecimal():
            return drawn


def short_id(container_id: str) -> str:
    return container_id[:SHORT_ID_LENGTH]


def generate_name(attempt: int, *, choose: Callable[[Sequence[str]], str] = secrets.choice) -> str:
    """`adjective_surname`; from the second attempt on with a digit after it. `attempt` counts from 1."""
    while (name := f"{choose(ADJECTIVES)}_{choose(SURNAMES)}") in _REFUSED_NAMES:
        pass
    return name if attempt < 2 else name + choose("0123456789")
