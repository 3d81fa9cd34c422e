"""Signals by name and number."""

from __future__ import annotations

import signal

import pytest

from api_service.validation.signals import parse_signal, validate_signal


@pytest.mark.parametrize("member", list(signal.Signals))
def test_every_signal_of_this_system_has_its_number(member: signal.Signals) -> None:
    assert parse_signal(member.name) == member.value
    assert parse_signal(member.name.removeprefix("SIG").lower()) == member.value
    assert parse_signal(str(member.value)) == member.value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15), ("term", 15), ("sigKill", 9), ("9", 9), ("09", 9), ("1", 1), ("64", 64), ("32", 32),
        ("RTMIN", 34), ("SIGRTMIN+0", 34), ("rtmin+3", 37), ("RTMIN+30", 64), ("RTMAX", 64), ("RTMAX-0", 64),
        ("SIGRTMAX-14", 50), ("RTMAX-30", 34), ("SIGIOT", 6), ("CLD", 17),
    ],
)  # fmt: skip
def test_what_is_a_signal(text: str, number: int) -> None:
    assert parse_signal(text) == number
    assert validate_signal(text, "config.stop_signal") == []


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "00", "65", "-1", "+9", "9.0", "1e1", " 9", "9\n", "9" * 5000, "SIG", "SIGSIGTERM", "TERMINATE",
        "SIG9", "²", "٩", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "RTMIN+", "RTMIN+1+1", "SIGKILL ", "EXIT",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    assert parse_signal(text) is None
    [violation] = validate_signal(text, "config.stop_signal")
    assert violation.field == "config.stop_signal"
    assert "SIGTERM" in violation.description
    assert len(violation.description) < 200
