"""What one run of the benchmark found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.bench.measure import Plan, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """`facts` are versions and settings; `start_steps` has one mapping a measured start, milliseconds by step, and is
    empty for an engine that does not tell."""

    facts: Mapping[str, str]
    samples: Samples
    start_steps: Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """`own` is Slipway, `other` is dockerd; None when the run left that engine out."""

    time: datetime
    plan: Plan
    machine: Mapping[str, str]
    own: EngineResult | None
    other: EngineResult | None
