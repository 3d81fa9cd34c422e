"""Container names and ids: the rule, the draw, and names made up for containers that were given none."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence

from api_service.validation.name_words import ADJECTIVES, SURNAMES
from common.errors import Violation

NAME_ATTEMPTS = 6
"""Generated names to try before the short id serves as the name."""

SHORT_ID_LENGTH = 12

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MAX_NAME = 253  # as many as a DNS name has; Docker has no bound
_REFUSED_NAMES = frozenset({"boring_wozniak"})  # Docker's one exception: Steve Wozniak is not boring


def strip_name(name: str) -> str:
    """The name as it is stored and compared: without the one leading slash that Docker's clients may send."""
    return name.removeprefix("/")


def validate_name(name: str, field: str) -> list[Violation]:
    """`name` as the request spells it, not empty."""
    stripped = strip_name(name)
    if not _NAME.fullmatch(stripped):
        rule = "must be two or more of a-z, A-Z, 0-9, '_', '.' and '-', the first a letter or digit, like 'web-1'"
        return [Violation(field=field, description=f"{_shown(name)} is not a container name: it {rule}")]
    if len(stripped) > _MAX_NAME:
        rule = f"has {len(stripped)} characters, at most {_MAX_NAME} are possible; choose a shorter one"
        return [Violation(field=field, description=f"the name {rule}")]
    return []


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


def _shown(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:61] + "...")
