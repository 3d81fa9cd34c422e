"""Detach keys: what is understood, and how they are found in what is typed."""

from __future__ import annotations

import pytest

from api_service.validation.detach_keys import KeyScanner, parse_detach_keys, validate_detach_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-@", b"\x00"), ("ctrl-[,x", b"\x1bx"), ("ctrl-_", b"\x1f")],
)
def test_keys_are_bytes(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys
    assert validate_detach_keys(text, "detach_keys") == []


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-A", "ab", "a,,b", ",", "ctrl-é", "é"])
def test_what_is_no_key_is_refused(text: str) -> None:
    (violation,) = validate_detach_keys(text, "config.detach_keys")
    assert violation.field == "config.detach_keys"
    assert "ctrl-p,ctrl-q" in violation.description


@pytest.mark.parametrize(
    ("typed", "passed", "found"),
    [
        ([b"abc"], b"abc", False),
        ([b"ab\x10", b"\x11cd"], b"ab", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10"], b"", False),
    ],
)
def test_keys_are_found_across_messages(typed: list[bytes], passed: bytes, found: bool) -> None:
    scanner = KeyScanner(b"\x10\x11")
    results = [scanner.scan(data) for data in typed]
    assert b"".join(data for data, _ in results) == passed
    assert results[-1][1] is found
