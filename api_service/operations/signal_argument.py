"""A signal as a request names it."""

from __future__ import annotations

from api_service.validation.signals import parse_signal, validate_signal
from common.errors import InvalidArgument


def signal_number(text: str, *, field: str = "signal") -> int:
    """From 1 to 64. Raises InvalidArgument."""
    number = parse_signal(text)
    if number is None:
        raise InvalidArgument(violations=validate_signal(text, field))
    return number
