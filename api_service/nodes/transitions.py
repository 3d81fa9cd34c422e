"""What a journal entry makes of a container's record, and the events that belong to it. Pure."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping, Sequence

from api_service.executor_client.journal import (
    Endpoint,
    ExecExited,
    Exited,
    HealthChanged,
    JournalEntry,
    NetworkConnected,
    NetworkDisconnected,
    Paused,
    RestartCancelled,
    Signaled,
    Started,
    StartRefused,
    Unpaused,
    Updated,
)
from api_service.executor_client.journal import Event as JournalEvent
from api_service.executor_client.snapshot import ContainerSnapshot, NodeSnapshot, SnapshotPhase
from api_service.nodes.endpoints import settings_from_spec
from api_service.records.asked import named_as_asked
from api_service.records.config import EndpointSettings, NetworkingConfig
from api_service.records.container import (
    ContainerRecord,
    ContainerState,
    JournalPosition,
    ObservedEndpoint,
    ObservedNetwork,
    Phase,
)
from api_service.records.event import Event
from api_service.records.event_shapes import container_event, mount_event, network_event
from api_service.records.health import Health, HealthStatus, is_checked
from api_service.records.mount import MountType
from api_service.records.network import MODE_DRIVERS

_SECOND = 1_000_000_000  # nanoseconds
_ALIVE = (SnapshotPhase.RUNNING, SnapshotPhase.PAUSED)
_ENDED = (SnapshotPhase.STOPPED, SnapshotPhase.RESTARTING)
_SIGNALS = signal.valid_signals()


def apply(record: ContainerRecord, entry: JournalEntry) -> tuple[ContainerRecord, list[Event]]:
    """The record after the entry. Neither looks nor moves where the record stands in the journal."""
    match entry.event:
        case Started():
            started, events = _started(record, entry.event, entry.time)
            return dataclasses.replace(started, halted=_began_before_its_halt(record, entry)), events
        case StartRefused():
            state = dataclasses.replace(
                record.state,
                running=False,
                pid=0,
                exit_code=entry.event.exit_code,
                error=named_as_asked(entry.event.message, record),
                start_id=entry.event.start_id,
                health=None,
                next_restart_at=entry.event.next_start,
            )
            return dataclasses.replace(record, state=state, network=ObservedNetwork()), []
        case Exited():
            return _exited(record, entry.event, entry.time)
        case Signaled():
            return record, [container_event(record, "kill", entry.time, signal=str(entry.event.signal))]
        case Paused() | Unpaused():
            paused = isinstance(entry.event, Paused)
            state = dataclasses.replace(record.state, paused=paused)
            event = container_event(record, "pause" if paused else "unpause", entry.time)
            return dataclasses.replace(record, state=state), [event]
        case RestartCancelled():
            state = dataclasses.replace(record.state, next_restart_at=None)
            return dataclasses.replace(record, state=state), []
        case HealthChanged():
            return _health_changed(record, entry.event.health, entry.time)
        case ExecExited() as event:
            more = {"exitCode": str(event.exit_code)} if event.exit_code is not None else {"error": event.error}
            return record, [container_event(record, "exec_die", entry.time, execID=event.exec_id, **more)]
        case NetworkConnected() as event:
            return _connected(record, event, entry.time)
        case NetworkDisconnected() as event:
            return _disconnected(record, event, entry.time)
        case Updated() as event:
            ports = record.network.ports if event.ports is None else event.ports
            return dataclasses.replace(record, network=dataclasses.replace(record.network, ports=ports)), []


def tells_alike(event: JournalEvent) -> bool:
    """Whether the events of an entry can be told from a record that is past it: those of the others depend on what was
    before, and a later record would tell of changes that there were not."""
    return not isinstance(event, HealthChanged | NetworkConnected | NetworkDisconnected)


def _started(record: ContainerRecord, event: Started, time: int) -> tuple[ContainerRecord, list[Event]]:
    state = ContainerState(
        running=True,
        pid=event.pid,
        started_at=time,
        finished_at=record.state.finished_at,
        start_id=event.start_id,
        restart_count=event.restart_count,
        health=Health() if is_checked(record.config.healthcheck) else None,
    )
    network = ObservedNetwork(
        sandbox_id=event.sandbox_id,
        sandbox_key=event.netns_path,
        endpoints=tuple(_endpoint(endpoint) for endpoint in event.endpoints),
        ports=event.ports,
    )
    started = dataclasses.replace(record, state=state, network=network)
    connected = _network_events(record, "connect", time, _attachments(record, network))
    mounted = _volume_events(record, "mount", time)
    return started, [*connected, *mounted, container_event(record, "start", time)]


def _began_before_its_halt(record: ContainerRecord, entry: JournalEntry) -> bool:
    """By its node's policy, which is told later than the halt that ended it, or is to end it. Who is asked to start it
    takes the halt back first."""
    told = record.halted_at
    untold = not told.journal_id
    return record.halted and (untold or (entry.journal_id == told.journal_id and entry.sequence <= told.sequence))


def _connected(record: ContainerRecord, event: NetworkConnected, time: int) -> tuple[ContainerRecord, list[Event]]:
    asked = dict(record.networking_config.endpoints)
    if event.network_name in asked:  # it was told a new name
        return _attached(record, asked, event), []
    asked[event.network_name] = settings_from_spec(record, event.spec)
    attached = _attached(record, asked, event)
    joined = [one for one in attached.network.endpoints if one.network_id == event.spec.network_id]
    return attached, _network_events(record, "connect", time, joined)


def _disconnected(
    record: ContainerRecord, event: NetworkDisconnected, time: int
) -> tuple[ContainerRecord, list[Event]]:
    asked = {
        name: settings
        for name, settings in record.networking_config.endpoints.items()
        if settings.network_id != event.network_id
    }
    left = [one for one in record.network.endpoints if one.network_id == event.network_id]
    return _attached(record, asked, event), _network_events(record, "disconnect", time, left)


def _attached(
    record: ContainerRecord, asked: Mapping[str, EndpointSettings], event: NetworkConnected | NetworkDisconnected
) -> ContainerRecord:
    endpoints = tuple(_endpoint(endpoint) for endpoint in event.endpoints)
    network = dataclasses.replace(record.network, endpoints=endpoints, ports=event.ports)
    return dataclasses.replace(record, networking_config=NetworkingConfig(endpoints=asked), network=network)


def _attachments(record: ContainerRecord, network: ObservedNetwork) -> Sequence[ObservedEndpoint]:
    """As Docker tells them: a mode without networks is one itself."""
    mode = record.host_config.network_mode
    if mode not in MODE_DRIVERS:
        return network.endpoints
    return (ObservedEndpoint(network_id=mode, network_name=mode, network_driver=MODE_DRIVERS[mode]),)


def _network_events(
    record: ContainerRecord, action: str, time: int, endpoints: Sequence[ObservedEndpoint]
) -> list[Event]:
    return [
        network_event(record, action, time, network_id=one.network_id, name=one.network_name, driver=one.network_driver)
        for one in endpoints
    ]


def _volume_events(record: ContainerRecord, action: str, time: int) -> list[Event]:
    volumes = [mount for mount in record.mount_points if mount.type is MountType.VOLUME]
    return [mount_event(record, mount, action, time) for mount in volumes]


def _health_changed(record: ContainerRecord, health: Health, time: int) -> tuple[ContainerRecord, list[Event]]:
    known = record.state.health
    changed = dataclasses.replace(record, state=dataclasses.replace(record.state, health=health))
    if health.status is HealthStatus.STARTING or (known is not None and known.status is health.status):
        return changed, []
    return changed, [container_event(record, "health_status", time, health=health.status.value)]


def _endpoint(endpoint: Endpoint) -> ObservedEndpoint:
    return ObservedEndpoint(
        network_id=endpoint.network_id,
        network_name=endpoint.network_name,
        network_driver=endpoint.network_driver,
        mac_address=endpoint.mac_address,
        ip_address=endpoint.ipv4_address,
        ip_prefix_len=endpoint.ipv4_prefix_length,
        gateway=endpoint.ipv4_gateway,
        global_ipv6_address=endpoint.ipv6_address,
        global_ipv6_prefix_len=endpoint.ipv6_prefix_length,
        ipv6_gateway=endpoint.ipv6_gateway,
    )


def _exited(record: ContainerRecord, event: Exited, time: int) -> tuple[ContainerRecord, list[Event]]:
    state = dataclasses.replace(
        record.state,
        running=False,
        pid=0,
        exit_code=event.exit_code,
        error=event.error,
        oom_killed=event.oom_killed,
        finished_at=time,
        start_id=event.start_id,
        paused=False,
        health=None,
        next_restart_at=event.next_start,
        lease_over=event.lease_over,
    )
    ended = dataclasses.replace(record, state=state, network=ObservedNetwork())
    # By then it may be to run again, or run.
    told = event.start_id != "" and event.start_id == record.end_told
    return ended, [] if told else _events_of_end(record, event, time)


def _events_of_end(record: ContainerRecord, event: Exited, time: int) -> list[Event]:
    more = {"exitCode": str(event.exit_code)} if event.exit_code is not None else {"error": event.error}
    if record.state.started_at is not None:
        more["execDuration"] = str(max(time - record.state.started_at, 0) // _SECOND)
    if event.exit_code is not None and event.exit_code > 128 and event.exit_code - 128 in _SIGNALS:
        more["signal"] = str(event.exit_code - 128)
    events = [container_event(record, "oom", time)] if event.oom_killed else []
    events.append(container_event(record, "die", time, **more))
    events += _network_events(record, "disconnect", time, _attachments(record, record.network))
    events += _volume_events(record, "unmount", time)
    return events


def given_up(record: ContainerRecord, why: str, *, now: int) -> tuple[ContainerRecord, list[Event]]:
    """The record of one whose node cannot tell, when it is certain that it runs no more: its end was not seen."""
    if record.state.running:
        ended, events = apply(record, _unseen_end(record, why, now))
        return dataclasses.replace(ended, end_told=record.state.start_id), events
    cancelled = JournalEntry(sequence=0, time=now, container_id=record.id, event=RestartCancelled())
    return apply(record, cancelled)


def resynchronise(
    record: ContainerRecord, snapshot: ContainerSnapshot | None, node: NodeSnapshot, *, now: int
) -> tuple[ContainerRecord, list[Event]]:
    """The record as the node's snapshot has it; `snapshot` is None when the node does not know the container.

    What happened between is told as far as the snapshot knows it: a run that nobody saw end ends with an unknown exit
    code, a run that began and ended meanwhile is told whole.
    """
    events: list[Event] = []
    for entry in _missed(record, snapshot, now=now):
        record, more = apply(record, entry)
        events += more
    for event in _standing(record, snapshot) if snapshot is not None else ():
        record, more = apply(record, JournalEntry(sequence=0, time=now, container_id=record.id, event=event))
        events += more
    if snapshot is not None and snapshot.phase is SnapshotPhase.BROKEN and record.phase is Phase.READY:
        state = dataclasses.replace(record.state, error=snapshot.error)
        record = dataclasses.replace(record, phase=Phase.DEAD, state=state)
    position = JournalPosition(journal_id=node.journal_id, sequence=node.sequence)
    return dataclasses.replace(record, observed=position), events


def _missed(record: ContainerRecord, snapshot: ContainerSnapshot | None, *, now: int) -> list[JournalEntry]:
    """The entries between the record and the snapshot, as far as the latter knows them."""
    if snapshot is None or snapshot.phase is SnapshotPhase.BROKEN:
        why = "the node no longer knows the container" if snapshot is None else snapshot.error
        return [_unseen_end(record, why, now)] if record.state.running else []
    started, known = snapshot.started, record.state.start_id
    end = snapshot.last if snapshot.phase in _ENDED else None
    if end is not None and not isinstance(end.event, Exited | StartRefused):
        end = None
    if end is not None and _start_id(end) == known and not record.state.running:
        return []
    same_run = started is not None and _start_id(started) == known
    still_runs = same_run and snapshot.phase in _ALIVE
    missed: list[JournalEntry] = []
    if record.state.running and not still_runs and (end is None or _start_id(end) != known):
        missed.append(_unseen_end(record, "the end of this run was not recorded", now))
    if started is not None and not same_run:
        missed.append(started)
    return missed if end is None else [*missed, end]


def _standing(record: ContainerRecord, snapshot: ContainerSnapshot) -> list[JournalEvent]:
    """What else is not as the snapshot has it: frozen or not, health, ports, a restart that is pending no more."""
    state, phase = record.state, snapshot.phase
    events: list[JournalEvent] = []
    if not state.running:
        pending = state.next_restart_at is not None
        return [RestartCancelled()] if pending and phase is not SnapshotPhase.RESTARTING else []
    if phase in _ALIVE and state.paused is not (phase is SnapshotPhase.PAUSED):
        events.append(Unpaused() if state.paused else Paused())
    if snapshot.health is not None and snapshot.health != state.health:
        events.append(HealthChanged(health=snapshot.health))
    started = snapshot.started.event if snapshot.started is not None else None
    if isinstance(started, Started) and started.start_id == state.start_id and started.ports != record.network.ports:
        events.append(Updated(ports=started.ports))
    return events


def _start_id(entry: JournalEntry) -> str:
    return entry.event.start_id if isinstance(entry.event, Started | StartRefused | Exited) else ""


def _unseen_end(record: ContainerRecord, why: str, now: int) -> JournalEntry:
    event = Exited(start_id=record.state.start_id, exit_code=None, error=why)
    time = max(now, record.state.started_at or 0)  # which is of the node's clock
    return JournalEntry(sequence=0, time=time, container_id=record.id, event=event)
