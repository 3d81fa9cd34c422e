"""The order of the measurements and what is kept of them, with engines that only write down what they are asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.bench.engine import DEFAULT_NETWORK, IMAGE, NO_PORTS, Engine, Kind
from tests.bench.measure import STEPS, Plan, measure
from tests.bench.network_namespace import NetworkNamespace
from tests.bench.slipway_engine import read_start_steps

_KILL_SECONDS = 0.125
_NOBODYS = NetworkNamespace(path=Path("/nowhere"), inode=1)  # no network namespace has this inode


@dataclass(slots=True, kw_only=True)
class RecordingEngine:
    name: str
    journal: list[str]
    facts: Mapping[str, str] = field(default_factory=dict)
    namespace: NetworkNamespace = _NOBODYS
    fails: str = ""

    def load_image(self, archive: Path) -> None:
        self._note("load")

    def pull(self, reference: str) -> None:
        raise NotImplementedError

    def remove_image(self, reference: str) -> None:
        raise NotImplementedError

    def create_network(self, name: str) -> None:
        raise NotImplementedError

    def remove_network(self, name: str) -> None:
        raise NotImplementedError

    def create(
        self,
        name: str,
        kind: Kind = Kind.PLAIN,
        *,
        image: str = IMAGE,
        network: str = DEFAULT_NETWORK,
        ports: range = NO_PORTS,
    ) -> str:
        self._note("create" if kind is Kind.PLAIN else f"create {kind.name.lower()}")
        return f"{self.name}-{name}"

    def start(self, container: str) -> None:
        self._note("start")

    def kill_until_exit(self, container: str) -> float:
        self._note("kill")
        return _KILL_SECONDS

    def remove(self, container: str) -> None:
        self._note("remove")

    def exec_true(self, container: str) -> None:
        self._note("exec")

    @contextmanager
    def echo(self, container: str) -> Iterator[Callable[[bytes], None]]:
        yield lambda line: self._note("echo")

    def tail(self, container: str, lines: int) -> int:
        self._note("tail")
        return lines

    @contextmanager
    def stats(self, containers: Sequence[str]) -> Iterator[None]:
        self._note(f"stats {len(containers)}")
        yield

    @property
    def services(self) -> set[int]:
        return {os.getpid()}

    def process(self, container: str) -> int:
        return os.getpid()

    def start_steps(self, containers: Sequence[str]) -> Sequence[Mapping[str, float]]:
        return []

    def _note(self, what: str) -> None:
        self.journal.append(f"{self.name} {what}")
        if what == self.fails:
            raise RuntimeError(f"{what} failed")


_: type[Engine] = RecordingEngine
_PLAN = Plan(
    warm_up=1,
    lifecycles=2,
    rounds=2,
    stats_containers=2,
    stats_time=0.001,
    bursts=2,
    containers=3,
    width=2,
    turn_pause=0,
    idle_pause=0,
)
_LIFE = ("create", "start", "kill", "remove")


def _engines(journal: list[str]) -> list[RecordingEngine]:
    return [RecordingEngine(name=name, journal=journal) for name in ("a", "b")]


def test_engines_take_turns_run_by_run() -> None:
    journal: list[str] = []
    measure(_engines(journal), replace(_PLAN, bursts=0), progress=lambda _: None)
    assert journal[: 3 * 2 * len(_LIFE)] == [
        f"{name} {step}" for _ in range(3) for name in ("a", "b") for step in _LIFE
    ]


def test_warm_up_is_not_kept() -> None:
    samples = measure(_engines([]), _PLAN, progress=lambda _: None)
    for one in samples.values():
        assert {step: len(taken) for step, taken in one.steps.items()} == dict.fromkeys(STEPS, 2)
        assert len(one.containers) == len(set(one.containers)) == 2


def test_a_kill_takes_what_the_engine_says() -> None:
    samples = measure(_engines([]), _PLAN, progress=lambda _: None)
    assert samples["b"].steps["kill"] == [_KILL_SECONDS] * 2


def test_every_container_of_a_burst_is_started_killed_and_removed() -> None:
    journal: list[str] = []
    samples = measure(_engines(journal), _PLAN, progress=lambda _: None)
    bursts = journal[-4 * 12 :]
    turns = [sorted(bursts[at : at + 12]) for at in range(0, len(bursts), 12)]
    assert turns == [sorted(f"{name} {step}" for step in _LIFE for _ in range(3)) for name in ("a", "b", "a", "b")]
    assert [len(one.bursts) for one in samples.values()] == [len(one.memory) for one in samples.values()] == [2, 2]


@pytest.mark.parametrize("step", [*_LIFE, "create loaded", "exec", "echo", "tail", "stats 2"])
def test_a_call_that_fails_ends_the_benchmark(step: str) -> None:
    engines = [RecordingEngine(name="a", journal=[], fails=step)]
    with pytest.raises(RuntimeError, match=f"{step} failed"):
        measure(engines, _PLAN, progress=lambda _: None)


def test_steps_are_those_of_the_containers_asked_for_in_their_order() -> None:
    log = "\n".join(
        [
            '{"event": "run", "argv": "crun start"}',
            '{"event": "start timings", "container": "warm-up", "total": 9, "steps": {"mount": 9}}',
            '{"event": "start timings", "container": "one", "total": 5, "steps": {"mount": 1, "create": 4}}',
            "a line that is no JSON",
            '{"event": "start timings", "container": "two", "total": 7, "steps": {"mount": 2}}',
        ]
    )
    assert read_start_steps(log, ["two", "one"]) == [
        {"mount": 2, "executor, total": 7},
        {"mount": 1, "create": 4, "executor, total": 5},
    ]


def test_a_start_that_was_not_logged_is_no_silent_gap() -> None:
    with pytest.raises(KeyError):
        read_start_steps("", ["one"])
