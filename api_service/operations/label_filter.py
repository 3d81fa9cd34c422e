"""Filters by label: `key` or `key=value`, all of which must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def has_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    return all(_has(labels, each) for each in wanted)


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
