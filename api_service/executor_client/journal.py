"""A node's journal: what it tells of its containers, one durable transition after the other.

Times are nanoseconds since the epoch on the node's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from api_service.executor_client.container_spec import EndpointSpec
from api_service.records.container import BoundPort
from api_service.records.health import Health
from api_service.records.network import BRIDGE_DRIVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    network_id: str
    network_name: str
    network_driver: str = BRIDGE_DRIVER
    interface: str = ""
    mac_address: str = ""
    ipv4_address: str = ""
    ipv4_prefix_length: int = 0
    ipv4_gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix_length: int = 0
    ipv6_gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    start_id: str
    pid: int
    sandbox_id: str = ""
    netns_path: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    restart_count: int = 0
    ports: tuple[BoundPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRefused:
    """The process could not be started, and nothing of the attempt is left. `reason` as in `StartFailed`. `next_start`:
    when it is tried again, None when it is not."""

    start_id: str
    exit_code: int
    message: str
    reason: str = ""
    next_start: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """`exit_code` is None when nobody saw the end; `error` then says why. `next_start` as in `StartRefused`.
    `lease_over`: it was killed because the node's lease was."""

    start_id: str
    exit_code: int | None
    oom_killed: bool = False
    error: str = ""
    next_start: int | None = None
    lease_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Signaled:
    signal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """It was frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaused:
    """It goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartCancelled:
    """A pending restart was called off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """Its limits, its restart policy or its published ports were changed. `ports`: where it is published now, none
    unless it runs; None when they were not changed."""

    ports: tuple[BoundPort, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged:
    """Its health is another, or one more probe failed."""

    health: Health


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecExited:
    """A program that was run in it ended. `exit_code` as in `Exited`."""

    exec_id: str
    exit_code: int | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConnected:
    """It was attached to a network. `endpoints`: the ones it has now, `ports`: where it is published now;
    empty unless it runs."""

    spec: EndpointSpec
    network_name: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDisconnected:
    """It was detached from a network. `endpoints`: the ones that are left, `ports`: where it is still published;
    empty unless it runs."""

    network_id: str
    network_name: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()


Event = (
    Started
    | StartRefused
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One durable transition. `sequence` increases by one through the whole journal. `journal_id` is empty for one that
    no journal has, and in an answer of an executor that does not say yet which it is."""

    journal_id: str = ""
    sequence: int
    time: int
    container_id: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalAnswer:
    """`entry` is None in the first answer, which says that the position was accepted."""

    journal_id: str
    entry: JournalEntry | None
