"""Environments: rules, merge, and what the process gets."""

from __future__ import annotations

import pytest

from api_service.validation.environment import (
    DEFAULT_PATH,
    merge_environment,
    process_environment,
    validate_environment,
)


@pytest.mark.parametrize("entry", ["A=b", "A=", "A", "A=b=c", "a.b-c d=e", "A=line\nline", "A=" + "x" * 131069, "Ä=ö"])
def test_entries_that_are_fine(entry: str) -> None:
    assert validate_environment([entry], "config.env") == []


def test_an_entry_has_room_in_the_kernel() -> None:
    [violation] = validate_environment(["OK=1", "PASSWORD=" + "x" * 131070], "config.env")
    assert violation.field == "config.env[1]"
    assert "PASSWORD" in violation.description
    assert "xx" not in violation.description


@pytest.mark.parametrize(
    ("request_entries", "image", "merged"),
    [
        ((), (), ()),
        ((), ("A=1", "B=2"), ("A=1", "B=2")),
        (("A=1",), (), ("A=1",)),
        (("A=mine", "C=3"), ("A=1", "B=2"), ("A=mine", "C=3", "B=2")),
        (("A",), ("A=1", "B=2"), ("A", "B=2")),
        (("A=",), ("A=1",), ("A=",)),
        (("AB=1",), ("A=1",), ("AB=1", "A=1")),
    ],
)
def test_merge(request_entries: tuple[str, ...], image: tuple[str, ...], merged: tuple[str, ...]) -> None:
    assert merge_environment(request_entries, image) == merged


_BASE = (f"PATH={DEFAULT_PATH}", "HOSTNAME=h")


@pytest.mark.parametrize(
    ("entries", "tty", "expected"),
    [
        ((), False, _BASE),
        ((), True, (*_BASE, "TERM=xterm")),
        (("TERM=vt100",), True, (*_BASE, "TERM=vt100")),
        (("TERM",), True, _BASE),
        (("PATH=/bin", "A=1"), False, ("PATH=/bin", "HOSTNAME=h", "A=1")),
        (("PATH",), False, ("HOSTNAME=h",)),
        (("A=1", "B=2", "A=3"), False, (*_BASE, "A=3", "B=2")),
        (("A=1", "A"), False, _BASE),
        (("A", "A=1"), False, (*_BASE, "A=1")),
        (("A=b=c",), False, (*_BASE, "A=b=c")),
    ],
)
def test_what_the_process_gets(entries: tuple[str, ...], tty: bool, expected: tuple[str, ...]) -> None:
    assert process_environment(entries, hostname="h", tty=tty) == expected
