"""What a handful of samples says, without any assumption on how they are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `percent` per cent of all do not exceed, so always
    one that was measured; p99 of 30 is the slowest. ValueError without samples or outside 0 < percent <= 100."""
    if not samples:
        raise ValueError("no samples to take a percentile of")
    if not 0 < percent <= 100:
        raise ValueError(f"percent is {percent}; it must be above 0 and at most 100")
    return sorted(samples)[math.ceil(len(samples) * percent / 100) - 1]
