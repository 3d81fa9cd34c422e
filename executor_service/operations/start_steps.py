"""How long each step of a start took: one debug line a start, event `start timings`, milliseconds by step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

_log = structlog.get_logger(__name__)


class StartSteps:
    """Steps may overlap: their sum is more than `total` then."""

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id
        self._began = time.perf_counter()
        self._milliseconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._milliseconds[name] = _milliseconds_since(began)

    def report(self) -> None:
        _log.debug(
            "start timings",
            container=self._container_id,
            total=_milliseconds_since(self._began),
            steps=self._milliseconds,
        )


def _milliseconds_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
