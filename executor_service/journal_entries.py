"""What the journal tells: each transition of a container, and what came with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from executor_service.container import EndpointSpec
from executor_service.health import HealthStatus, ProbeResult
from executor_service.network.sandbox import Endpoint
from executor_service.ports import BoundPort


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The process runs. `pid` is the node's, `netns_path` empty with the host's network. `restart_count`: starts by the
    restart policy since the last one that was asked for."""

    start_id: str
    pid: int
    sandbox_id: str
    netns_path: str
    endpoints: tuple[Endpoint, ...] = ()
    restart_count: int = 0
    ports: tuple[BoundPort, ...] = ()
    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailure:
    """The process could not be started, and everything done for it was undone. `exit_code` and `reason` as in
    `StartFailed`. `next_start`: when it is tried again, nanoseconds since the epoch; None when it is not."""

    start_id: str
    exit_code: int
    message: str
    reason: str = ""
    next_start: int | None = None
    kind: Literal["start_failed"] = "start_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The process ended. `exit_code` None: nobody saw it, `error` says why. `next_start` as in `StartFailure`.
    `lease_over`: it was killed because the node's lease was."""

    start_id: str
    exit_code: int | None
    oom_killed: bool = False
    error: str = ""
    next_start: int | None = None
    lease_over: bool = False
    kind: Literal["exited"] = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signaled:
    """A signal was sent."""

    signal: int
    kind: Literal["signaled"] = "signaled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """It was frozen."""

    kind: Literal["paused"] = "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaused:
    """It goes on."""

    kind: Literal["unpaused"] = "unpaused"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartCancelled:
    """A pending restart was called off."""

    kind: Literal["restart_cancelled"] = "restart_cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """Its limits, its restart policy or its published ports were changed. `ports`: where it is published now, none
    unless it runs; None when they were not changed."""

    ports: tuple[BoundPort, ...] | None = None
    kind: Literal["updated"] = "updated"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged:
    """Its health is another, or one more probe failed. `log`: the last probes, at most five, the oldest first."""

    status: HealthStatus
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()
    kind: Literal["health_changed"] = "health_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecExited:
    """A program that was run in it ended. `exit_code` None: nobody saw it, `error` says why."""

    exec_id: str
    exit_code: int | None
    error: str = ""
    kind: Literal["exec_exited"] = "exec_exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConnected:
    """It was attached to a network. `endpoints`: the ones it has now, `ports`: where it is published now;
    empty unless it runs."""

    spec: EndpointSpec
    network_name: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()
    kind: Literal["network_connected"] = "network_connected"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDisconnected:
    """It was detached from a network. `endpoints`: the ones that are left, `ports`: where it is still published;
    empty unless it runs."""

    network_id: str
    network_name: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()
    kind: Literal["network_disconnected"] = "network_disconnected"


AnyEvent = (
    Started
    | StartFailure
    | Exited
    | Signaled
    | Paused
    | Unpaused
    | RestartCancelled
    | Updated
    | HealthChanged
    | ExecExited
    | NetworkConnected
    | NetworkDisconnected
)
Event = Annotated[AnyEvent, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One transition of one container. `time` is nanoseconds since the epoch."""

    sequence: int
    time: int
    container_id: str
    event: Event
