from __future__ import annotations

import pytest

from tests.bench.statistics import percentile


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(1, 1.0), (10, 1.0), (10.1, 2.0), (50, 5.0), (51, 6.0), (90, 9.0), (99, 10.0), (100, 10.0)],
)
def test_percentile_is_the_smallest_sample_that_covers_the_share(percent: float, expected: float) -> None:
    assert percentile([10, 3, 1, 2, 5, 4, 9, 8, 7, 6], percent) == expected


def test_percentile_99_of_thirty_is_the_slowest() -> None:
    samples = [float(number) for number in range(30)]
    assert percentile(samples, 99) == 29
    assert percentile(samples, 50) == 14


def test_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([0.25], 50) == percentile([0.25], 99) == 0.25


def test_percentile_leaves_the_samples_in_their_order() -> None:
    samples = [3.0, 1.0, 2.0]
    percentile(samples, 50)
    assert samples == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_percentile_refuses_a_share_that_is_none(percent: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 100"):
        percentile([1.0], percent)


def test_percentile_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)
