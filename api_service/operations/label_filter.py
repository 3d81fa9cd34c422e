"""Filters by label: `key` or `key=value`, all of which must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def has_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    return all(_has(labels, each) for each in wanted)


def passes_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """As `has_labels`; one that begins with `!` demands that it does not hold."""
    having = [label for label in wanted if not label.startswith("!")]
    lacking = [label.removeprefix("!") for label in wanted if label.startswith("!")]
    return has_labels(labels, having) and not any(_has(labels, label) for label in lacking)


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
