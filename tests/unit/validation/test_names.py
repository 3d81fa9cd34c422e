"""Names and ids."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_service.validation.name_words import ADJECTIVES, SURNAMES
from api_service.validation.names import generate_id, generate_name, short_id, strip_name, validate_name


@pytest.mark.parametrize("name", ["ab", "/ab", "a1", "0a", "a.", "a_", "a-", "Web-1_x.y", "a" * 253, "/" + "a" * 253])
def test_names_that_are_fine(name: str) -> None:
    assert validate_name(name, "name") == []


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "/",
        "/a",
        "//ab",
        "ab/",
        "a/b",
        "-ab",
        ".ab",
        "_ab",
        "a b",
        "ab\n",
        "ab\0",
        "ä1",
        "a²",
        "..",
        "../x",
        "a" * 254,
    ],
)
def test_names_that_are_refused(name: str) -> None:
    [violation] = validate_name(name, "name")
    assert violation.field == "name"


def test_refusal_shows_name_and_rule() -> None:
    [violation] = validate_name("bad name", "name")
    assert "'bad name'" in violation.description
    assert "a-z, A-Z, 0-9" in violation.description


def test_refusal_of_a_huge_name_is_short() -> None:
    assert len(validate_name("!" * 10**6, "name")[0].description) < 300


@given(st.text(max_size=20))
def test_rule_is_dockers_pattern(name: str) -> None:
    accepted = re.fullmatch(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+", name, re.ASCII) is not None
    assert (validate_name(name, "name") == []) == accepted


@pytest.mark.parametrize(("name", "stripped"), [("/web", "web"), ("web", "web"), ("//web", "/web"), ("", "")])
def test_one_leading_slash_goes(name: str, stripped: str) -> None:
    assert strip_name(name) == stripped


def test_ids_are_64_hex_and_differ() -> None:
    ids = {generate_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[a-f0-9]{64}", drawn) and not short_id(drawn).isdigit() for drawn in ids)


def test_id_whose_short_form_is_a_number_is_drawn_again() -> None:
    draws = iter(["123456789012" + "a" * 52, "000000000000" + "f" * 52, "12345678901b" + "0" * 52])
    asked: list[int] = []

    def token_hex(size: int) -> str:
        asked.append(size)
        return next(draws)

    assert generate_id(token_hex=token_hex) == "12345678901b" + "0" * 52
    assert asked == [32, 32, 32]


@pytest.mark.parametrize(("attempt", "expected"), [(1, "calm_curie"), (2, "calm_curie7"), (6, "calm_curie7")])
def test_generated_name_gets_a_digit_from_the_second_attempt(attempt: int, expected: str) -> None:
    words = iter(["calm", "curie", "7"])
    assert generate_name(attempt, choose=lambda _choices: next(words)) == expected


def test_steve_wozniak_is_not_boring() -> None:
    words = iter(["boring", "wozniak", "boring", "curie"])
    assert generate_name(1, choose=lambda _choices: next(words)) == "boring_curie"
    assert "boring" in ADJECTIVES
    assert "wozniak" in SURNAMES


def test_there_are_words_enough_and_each_makes_a_name() -> None:
    assert len(set(ADJECTIVES)) == len(ADJECTIVES) >= 60
    assert len(set(SURNAMES)) == len(SURNAMES) >= 120
    assert all(re.fullmatch("[a-z]{2,}", word) for word in ADJECTIVES + SURNAMES)
    assert validate_name(generate_name(2), "name") == []
