"""The rounds: every engine does the same things in turn, and each duration is kept. All times are in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from tests.bench import processes
from tests.bench.engine import Engine
from tests.bench.memory import MemoryGrowth, MemoryReading, growth, read_memory

STEPS = ("create", "start", "kill", "remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: lifecycles in turn per engine, and rounds of starting `containers`, `width` at a time.

    After a turn there is a pause, so that what an engine still does after its answer (ending a shim, collecting a
    network namespace) is not charged to the other; before memory is read there is one for both to come to rest.
    """

    warm_up: int = 5
    lifecycles: int = 30
    bursts: int = 3
    containers: int = 64
    width: int = 16
    turn_pause: float = 0.15  # seconds
    idle_pause: float = 2.0


QUICK = Plan(warm_up=2, lifecycles=6, bursts=1, containers=16, width=16)


@dataclass(slots=True, kw_only=True)
class Samples:
    """All durations of one engine, in the order they were measured, and its memory per idle container."""

    containers: list[str] = field(default_factory=list)  # of the lifecycles
    steps: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})
    bursts: list[float] = field(default_factory=list)
    memory: list[MemoryGrowth] = field(default_factory=list)


def measure(engines: Sequence[Engine], plan: Plan, *, progress: Callable[[str], None]) -> Mapping[str, Samples]:
    """Samples by the engine's name. Engines take turns run by run, after `plan.warm_up` runs that are not kept."""
    samples = {engine.name: Samples() for engine in engines}
    progress(f"warming up: {plan.warm_up} lifecycles each")
    for _ in range(plan.warm_up):
        for engine in engines:
            _lifecycle(engine, plan, Samples())
    progress(f"{plan.lifecycles} lifecycles each, in turn")
    for _ in range(plan.lifecycles):
        for engine in engines:
            _lifecycle(engine, plan, samples[engine.name])
    for number in range(plan.bursts):
        progress(f"{plan.containers} starts, {plan.width} at a time: round {number + 1} of {plan.bursts}")
        for engine in engines:
            _burst(engine, plan, samples[engine.name])
    return samples


def _lifecycle(engine: Engine, plan: Plan, samples: Samples) -> None:
    with _timed(samples, "create"):
        container = engine.create(_new_name())
    samples.containers.append(container)
    with _timed(samples, "start"):
        engine.start(container)
    samples.steps["kill"].append(engine.kill_until_exit(container))
    with _timed(samples, "remove"):
        engine.remove(container)
    time.sleep(plan.turn_pause)


def _burst(engine: Engine, plan: Plan, samples: Samples) -> None:
    with ThreadPoolExecutor(plan.width) as clients:
        time.sleep(plan.idle_pause)
        before = _memory(engine, containers=())
        containers = list(clients.map(engine.create, [_new_name() for _ in range(plan.containers)]))
        begun = time.perf_counter()
        list(clients.map(engine.start, containers))
        samples.bursts.append(time.perf_counter() - begun)
        time.sleep(plan.idle_pause)
        samples.memory.append(growth(before, _memory(engine, containers), containers=plan.containers))
        list(clients.map(engine.kill_until_exit, containers))
        list(clients.map(engine.remove, containers))


def _memory(engine: Engine, containers: Sequence[str]) -> MemoryReading:
    """Of all the engine's own processes; those inside the containers are left out, whatever engine started them."""
    inside = {engine.process(container) for container in containers}
    inside |= processes.descendants(inside)
    return read_memory(engine.namespace.processes() - inside)


@contextmanager
def _timed(samples: Samples, step: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    samples.steps[step].append(time.perf_counter() - begun)


def _new_name() -> str:
    return f"bench-{uuid4().hex}"
