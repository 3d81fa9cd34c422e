"""Names and ids."""

from __future__ import annotations

import re

import pytest

from api_service.validation.name_words import ADJECTIVES, SURNAMES
from api_service.validation.names import generate_id, generate_name, short_id, strip_name


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
    assert re.fullmatch("[a-z]+_[a-z]+[0-9]", generate_name(2))
