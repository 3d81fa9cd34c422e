"""What a journal entry makes of a record, and what a snapshot does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from api_service.executor_client.journal import (
    Endpoint,
    Event,
    Exited,
    JournalEntry,
    Paused,
    RestartCancelled,
    Signaled,
    Started,
    StartRefused,
)
from api_service.executor_client.snapshot import ContainerSnapshot, NodeSnapshot, SnapshotPhase
from api_service.nodes.observer import Observer
from api_service.nodes.transitions import apply, given_up, resynchronise
from api_service.records.config import ContainerConfig, HostConfig, NetworkingConfig
from api_service.records.container import ContainerRecord, JournalPosition, Phase, Status
from api_service.records.container_repository import ContainerRepository
from api_service.records.event_log import EventLog
from api_service.records.exec_repository import ExecRepository
from api_service.records.health import Health, HealthStatus
from api_service.records.node_usage import NodeUsages
from api_service.store.memory_store import MemoryStore

ID = "a" * 64
SECOND = 1_000_000_000
CREATED = ContainerRecord(
    id=ID,
    name="web",
    created_at=0,
    phase=Phase.READY,
    path="sleep",
    args=(),
    config=ContainerConfig(image="busybox", labels={"k": "v"}),
    host_config=HostConfig(network_mode="bridge"),
    networking_config=NetworkingConfig(),
    image_id="sha256:" + "1" * 64,
    node="local",
    platform="linux/amd64",
)


def entry(event: Event, *, sequence: int = 1, time: int = 0) -> JournalEntry:
    return JournalEntry(journal_id="j", sequence=sequence, time=time, container_id=ID, event=event)


def started(start_id: str = "s1", **fields: int) -> JournalEntry:
    endpoint = Endpoint(network_id="bridge", network_name="bridge", ipv4_address="172.17.0.2")
    return entry(Started(start_id=start_id, pid=7, sandbox_id="sb", netns_path="/ns", endpoints=(endpoint,)), **fields)


def exited(start_id: str = "s1", code: int | None = 0, **fields: int) -> JournalEntry:
    return entry(Exited(start_id=start_id, exit_code=code), **fields)


RUNNING, _ = apply(CREATED, started(time=SECOND))


def test_start() -> None:
    record, events = apply(CREATED, started(time=SECOND))
    assert (record.status, record.state.pid, record.state.started_at) == (Status.RUNNING, 7, SECOND)
    assert [endpoint.ip_address for endpoint in record.network.endpoints] == ["172.17.0.2"]
    assert [(event.type.value, event.action) for event in events] == [("network", "connect"), ("container", "start")]
    assert events[1].attributes == {"k": "v", "image": "busybox", "name": "web"}


def test_start_clears_what_the_run_before_left() -> None:
    ended, _ = apply(RUNNING, entry(Exited(start_id="s1", exit_code=9, oom_killed=True, error="x"), time=2 * SECOND))
    again, _ = apply(ended, started("s2", time=3 * SECOND))
    assert (again.state.exit_code, again.state.oom_killed, again.state.error) == (None, False, "")
    assert again.state.finished_at == 2 * SECOND


def test_end() -> None:
    record, events = apply(RUNNING, exited(code=137, time=4 * SECOND))
    assert (record.status, record.state.exit_code, record.state.pid) == (Status.EXITED, 137, 0)
    assert not record.network.endpoints
    assert [event.action for event in events] == ["die", "disconnect"]
    assert events[0].attributes["exitCode"] == "137"
    assert events[0].attributes["execDuration"] == "3"


def test_end_nobody_saw_has_no_code() -> None:
    record, events = apply(RUNNING, entry(Exited(start_id="s1", exit_code=None, error="gone")))
    assert record.state.exit_code is None
    assert "exitCode" not in events[0].attributes
    assert events[0].attributes["error"] == "gone"


def test_end_that_was_told_without_the_node_is_told_once() -> None:
    """Also when it runs again before the node tells of it."""
    lost, events = given_up(RUNNING, "its node was lost", now=4 * SECOND)
    assert [event.action for event in events] == ["die", "disconnect"]
    late = exited(code=137, time=3 * SECOND)
    known, events = apply(lost, late)
    assert (known.state.exit_code, events) == (137, [])
    assert apply(known, late) == (known, [])
    again, _ = apply(lost, started("s2", time=5 * SECOND))
    assert apply(again, late)[1] == []
    assert [event.action for event in apply(again, exited("s2", time=6 * SECOND))[1]] == ["die", "disconnect"]


def test_memory_ran_out() -> None:
    record, events = apply(RUNNING, entry(Exited(start_id="s1", exit_code=137, oom_killed=True)))
    assert record.state.oom_killed
    assert [event.action for event in events] == ["oom", "die", "disconnect"]


def test_start_that_failed_tells_nothing_but_the_record() -> None:
    record, events = apply(CREATED, entry(StartRefused(start_id="s1", exit_code=127, message="no")))
    assert (record.status, record.state.exit_code, record.state.error) == (Status.CREATED, 127, "no")
    assert events == []


def test_signal_changes_nothing() -> None:
    record, events = apply(RUNNING, entry(Signaled(signal=15)))
    assert record is RUNNING
    assert [(event.action, event.attributes["signal"]) for event in events] == [("kill", "15")]


FAILED = entry(StartRefused(start_id="s2", exit_code=126, message="no"), sequence=9)
P = SnapshotPhase


@pytest.mark.parametrize(
    ("record", "phase", "first", "last", "status", "code", "actions"),
    [
        (CREATED, P.CREATED, None, None, Status.CREATED, None, []),
        (CREATED, P.RUNNING, started("s1"), started("s1"), Status.RUNNING, None, ["connect", "start"]),
        (CREATED, P.RUNNING, started("s1"), entry(Signaled(signal=1)), Status.RUNNING, None, ["connect", "start"]),
        (CREATED, P.STOPPED, started("s1"), exited("s1", 3), Status.EXITED, 3,
         ["connect", "start", "die", "disconnect"]),
        (CREATED, P.STOPPED, None, FAILED, Status.CREATED, 126, []),
        (RUNNING, P.RUNNING, started("s1"), started("s1"), Status.RUNNING, None, []),
        (RUNNING, P.RUNNING, started("s1"), entry(Signaled(signal=1)), Status.RUNNING, None, []),
        (RUNNING, P.RUNNING, started("s2"), started("s2"), Status.RUNNING, None,
         ["die", "disconnect", "connect", "start"]),
        (RUNNING, P.STOPPED, started("s1"), exited("s1", 3), Status.EXITED, 3, ["die", "disconnect"]),
        (RUNNING, P.STOPPED, started("s2"), exited("s2", 3), Status.EXITED, 3,
         ["die", "disconnect", "connect", "start", "die", "disconnect"]),
        (RUNNING, P.STOPPED, started("s1"), FAILED, Status.EXITED, 126, ["die", "disconnect"]),
        (RUNNING, P.STOPPED, started("s1"), started("s1"), Status.EXITED, None, ["die", "disconnect"]),
        (RUNNING, P.CREATED, None, None, Status.EXITED, None, ["die", "disconnect"]),
        (apply(RUNNING, exited(code=4))[0], P.STOPPED, started("s1"), exited("s1", 4), Status.EXITED, 4, []),
    ],
)  # fmt: skip
def test_snapshot(
    record: ContainerRecord,
    phase: SnapshotPhase,
    first: JournalEntry | None,
    last: JournalEntry | None,
    status: Status,
    code: int | None,
    actions: list[str],
) -> None:
    snapshot = ContainerSnapshot(container_id=ID, phase=phase, started=first, last=last)
    node = NodeSnapshot(containers=[snapshot], journal_id="j", sequence=12)
    after, events = resynchronise(record, snapshot, node, now=99)
    assert after.status is status
    assert after.state.exit_code == code
    assert [event.action for event in events] == actions
    assert after.observed == JournalPosition(journal_id="j", sequence=12)
    again, more = resynchronise(after, snapshot, node, now=99)
    assert (again, more) == (after, [])


PENDING = entry(Exited(start_id="s1", exit_code=3, next_start=77))
RESTARTING, _ = apply(RUNNING, PENDING)
PAUSED, _ = apply(RUNNING, entry(Paused()))
WELL = Health(status=HealthStatus.HEALTHY)


@pytest.mark.parametrize(
    ("record", "snapshot", "status", "actions"),
    [
        (RUNNING, {"phase": P.RESTARTING, "last": PENDING}, Status.RESTARTING, ["die", "disconnect"]),
        (RESTARTING, {"phase": P.RESTARTING, "last": PENDING}, Status.RESTARTING, []),
        (RESTARTING, {"phase": P.STOPPED, "last": PENDING}, Status.EXITED, []),
        (RUNNING, {"phase": P.STOPPED, "last": PENDING}, Status.EXITED, ["die", "disconnect"]),
        (RESTARTING, {"phase": P.RUNNING, "started": started("s2")}, Status.RUNNING, ["connect", "start"]),
        (RUNNING, {"phase": P.PAUSED}, Status.PAUSED, ["pause"]),
        (PAUSED, {"phase": P.PAUSED}, Status.PAUSED, []),
        (PAUSED, {"phase": P.RUNNING}, Status.RUNNING, ["unpause"]),
        (RUNNING, {"phase": P.RUNNING, "health": WELL}, Status.RUNNING, ["health_status"]),
        (PAUSED, {"phase": P.STOPPED, "last": exited("s1")}, Status.EXITED, ["die", "disconnect"]),
    ],
)
def test_snapshot_of_what_is_supervised(
    record: ContainerRecord, snapshot: dict[str, Any], status: Status, actions: list[str]
) -> None:
    container = ContainerSnapshot(**{"container_id": ID, "started": started("s1"), **snapshot})
    node = NodeSnapshot(containers=[container], journal_id="j", sequence=12)
    after, events = resynchronise(record, container, node, now=99)
    assert after.status is status
    assert after.state.health == snapshot.get("health")
    assert [event.action for event in events] == actions
    assert resynchronise(after, container, node, now=99) == (after, [])


def test_a_pending_restart_and_what_ends_it() -> None:
    assert (RESTARTING.status, RESTARTING.state.running, RESTARTING.state.active) == (Status.RESTARTING, False, True)
    cancelled, events = apply(RESTARTING, entry(RestartCancelled()))
    assert (cancelled.status, cancelled.state.exit_code, events) == (Status.EXITED, 3, [])
    again, _ = apply(RESTARTING, entry(Started(start_id="s2", pid=8, restart_count=1)))
    assert (again.status, again.state.next_restart_at, again.state.restart_count) == (Status.RUNNING, None, 1)
    failed, _ = apply(RESTARTING, entry(StartRefused(start_id="s2", exit_code=128, message="no", next_start=88)))
    assert (failed.status, failed.state.next_restart_at, failed.state.error) == (Status.RESTARTING, 88, "no")


def test_container_the_node_does_not_know() -> None:
    node = NodeSnapshot(containers=[], journal_id="j", sequence=1)
    after, events = resynchronise(RUNNING, None, node, now=2 * SECOND)
    assert (after.status, after.state.exit_code, after.state.finished_at) == (Status.EXITED, None, 2 * SECOND)
    assert [event.action for event in events] == ["die", "disconnect"]
    assert resynchronise(CREATED, None, node, now=99)[0] == dataclasses.replace(CREATED, observed=after.observed)
    behind, _ = resynchronise(RUNNING, None, node, now=99)
    assert behind.state.finished_at == SECOND, "it ended before it began"


def test_container_that_is_broken_there() -> None:
    snapshot = ContainerSnapshot(container_id=ID, phase=P.BROKEN, error="unreadable")
    node = NodeSnapshot(containers=[snapshot], journal_id="j", sequence=1)
    after, events = resynchronise(RUNNING, snapshot, node, now=99)
    assert (after.status, after.state.error) == (Status.DEAD, "unreadable")
    assert [event.action for event in events] == ["die", "disconnect"]


async def test_end_is_noticed_when_a_signal_is_told_after_it() -> None:
    async with MemoryStore() as store:
        events = EventLog(store)
        containers = ContainerRepository(store, events, NodeUsages(store))
        await containers.add(CREATED)
        execs = ExecRepository(store, events, clock=lambda: 0)
        observer, ended = Observer(containers, events, execs, node="local", clock=lambda: 0), []
        observer.on_ended = lambda record: ended.append(record.id)
        run = [started(sequence=1), exited(sequence=2), entry(Signaled(signal=9), sequence=3)]
        await observer.observe(run)
        assert ended == [ID]
        await observer.observe([exited(sequence=4), started("s2", sequence=5)])
        assert ended == [ID]  # it runs again
