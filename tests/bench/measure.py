"""The rounds: every engine does the same things in turn, and each duration is kept. All times are in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from tests.bench import processes
from tests.bench.engine import LOG_LINES, Engine, Kind
from tests.bench.memory import MemoryGrowth, MemoryReading, growth, read_memory

STEPS = ("create", "start", "kill", "remove", "loaded start", "exec", "echo", "tail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: lifecycles in turn per engine, rounds of what is done to a running container, and rounds of
    starting `containers`, `width` at a time.

    After a turn there is a pause, so that what an engine still does after its answer (ending a shim, collecting a
    network namespace) is not charged to the other; before memory is read there is one for both to come to rest.
    """

    warm_up: int = 5
    lifecycles: int = 30
    rounds: int = 60  # of exec, echo and tail
    tail_lines: int = 1000
    stats_containers: int = 100
    stats_time: float = 10.0  # seconds
    bursts: int = 3
    containers: int = 64
    width: int = 16
    turn_pause: float = 0.15  # seconds
    idle_pause: float = 2.0


QUICK = Plan(warm_up=2, lifecycles=6, rounds=6, stats_containers=8, stats_time=2.0, bursts=1, containers=16, width=16)


@dataclass(slots=True, kw_only=True)
class Samples:
    """All durations of one engine, in the order they were measured, and its memory per idle container."""

    containers: list[str] = field(default_factory=list)  # of the lifecycles
    steps: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})
    bursts: list[float] = field(default_factory=list)
    stats: list[float] = field(default_factory=list)  # seconds of processor time in a second
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
    progress(f"{plan.lifecycles} starts with mounts and limits each, in turn")
    for _ in range(plan.lifecycles):
        for engine in engines:
            _loaded_start(engine, plan, samples[engine.name])
    progress(f"{plan.rounds} times exec, echo and tail each, in turn")
    _inside(engines, plan, samples)
    progress(f"statistics of {plan.stats_containers} containers, {plan.stats_time:g} s")
    for engine in engines:
        _stats(engine, plan, samples[engine.name])
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


def _loaded_start(engine: Engine, plan: Plan, samples: Samples) -> None:
    container = engine.create(_new_name(), Kind.LOADED)
    with _timed(samples, "loaded start"):
        engine.start(container)
    engine.kill_until_exit(container)
    engine.remove(container)
    time.sleep(plan.turn_pause)


def _inside(engines: Sequence[Engine], plan: Plan, samples: Mapping[str, Samples]) -> None:
    """What is done to running containers, the engines in turn."""
    with ExitStack() as stack:
        running = {
            (engine.name, kind): stack.enter_context(_running(engine, kind))
            for engine in engines
            for kind in (Kind.PLAIN, Kind.TALKER, Kind.ECHO)
        }
        echoes = {engine.name: stack.enter_context(engine.echo(running[engine.name, Kind.ECHO])) for engine in engines}
        for engine in engines:
            _await_lines(engine, running[engine.name, Kind.TALKER], plan)
        for _ in range(plan.rounds):
            for engine in engines:
                with _timed(samples[engine.name], "exec"):
                    engine.exec_true(running[engine.name, Kind.PLAIN])
                with _timed(samples[engine.name], "echo"):
                    echoes[engine.name](b"round trip\n")
                with _timed(samples[engine.name], "tail"):
                    engine.tail(running[engine.name, Kind.TALKER], plan.tail_lines)
                time.sleep(plan.turn_pause)


def _await_lines(engine: Engine, container: str, plan: Plan) -> None:
    while engine.tail(container, LOG_LINES) < LOG_LINES:
        time.sleep(plan.turn_pause)


@contextmanager
def _running(engine: Engine, kind: Kind) -> Iterator[str]:
    container = engine.create(_new_name(), kind)
    engine.start(container)
    yield container
    engine.kill_until_exit(container)
    engine.remove(container)


def _stats(engine: Engine, plan: Plan, samples: Samples) -> None:
    """The processor time of the engine's own processes while it tells the use of many containers once a second."""
    with ThreadPoolExecutor(plan.width) as clients, ExitStack() as stack:
        running = [_running(engine, Kind.PLAIN) for _ in range(plan.stats_containers)]
        containers = list(clients.map(lambda one: one.__enter__(), running))
        stack.callback(lambda: list(clients.map(lambda one: one.__exit__(None, None, None), running)))
        services = engine.services
        with engine.stats(containers):
            time.sleep(plan.idle_pause)
            before, begun = processes.processor_time(services), time.perf_counter()
            time.sleep(plan.stats_time)
            spent = processes.processor_time(services) - before
            samples.stats.append(spent / (time.perf_counter() - begun))


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
