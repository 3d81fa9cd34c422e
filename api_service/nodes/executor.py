"""The executor service of a node, as this service sees it: domain types only.

Times are nanoseconds since the epoch on the node's clock. Every method takes the deadline after which its answer is of
no use any more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from api_service.nodes.container_spec import ContainerSpec, EndpointSpec, PublishedPort
from api_service.nodes.deadline import Deadline
from api_service.nodes.files import ArchiveTarget, FileChange, PathStat
from api_service.nodes.images import (
    CommitSpec,
    ImportSpec,
    LayerProgress,
    Platform,
    PullSpec,
    PushedImage,
    PushSpec,
    SavedImage,
)
from api_service.nodes.network import ContainerElsewhere, StoredNetwork, Underlay
from api_service.nodes.stats import ContainerStats, Process
from api_service.records.config import ConsoleSize, RestartPolicy
from api_service.records.container import BoundPort
from api_service.records.health import Health
from api_service.records.network import BRIDGE_DRIVER
from api_service.records.resources import Resources


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
    """One durable transition. `sequence` increases by one through the whole journal."""

    sequence: int
    time: int
    container_id: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalAnswer:
    """`entry` is None in the first answer, which says that the position was accepted."""

    journal_id: str
    entry: JournalEntry | None


class SnapshotPhase(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    RESTARTING = "restarting"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSnapshot:
    """`started` is the last `Started` entry, `last` the last of any kind; None when there is none. `health` is None
    without a check, and unless it runs. `execs`: the ids of those that begin or run, or whose end is not journaled."""

    container_id: str
    phase: SnapshotPhase
    started: JournalEntry | None = None
    last: JournalEntry | None = None
    error: str = ""
    health: Health | None = None
    execs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """Every container of the node, and the journal's position at the same instant."""

    containers: Sequence[ContainerSnapshot]
    journal_id: str
    sequence: int


class LogStream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    container_id: str
    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int | None = None
    until: int | None = None
    tail: int | None = None


class LogLine(NamedTuple):
    """`dropped`: instead of a line, how many are missing here. A tuple, for it is made a thousand times in one read."""

    stream: LogStream
    time: int
    data: bytes
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """A program as an executor is asked to run it. `env` is whole but for HOME."""

    id: str
    container_id: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    user: str
    group_add: tuple[str, ...]
    capabilities: tuple[str, ...]
    no_new_privileges: bool
    terminal: bool
    terminal_size: ConsoleSize | None
    stdin: bool
    stdout: bool
    stderr: bool
    detach: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachTarget:
    container_id: str
    stdin: bool
    stdout: bool
    stderr: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInput:
    """Bytes, the end of them, the terminal's new size, or that the client leaves and an exec goes on."""

    data: bytes = b""
    end: bool = False
    resize: ConsoleSize | None = None
    detach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOutput:
    stream: LogStream
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRuns:
    pid: int


ExecAnswer = ExecRuns | StreamOutput | JournalEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """`config` is the image's configuration, JSON, byte for byte; `names` are what its archive carried."""

    id: str
    config: bytes
    layers: tuple[str, ...]
    size: int
    names: tuple[str, ...]
    layer_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """`digest` is the manifest's, `index_digest` that of the index it was chosen from, if any."""

    image: StoredImage
    digest: str
    index_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMapping:
    """`count` ids of a container, 0 and up, are these on the node."""

    first_uid: int
    first_gid: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node is and can do. `memory` in bytes; `runtimes`: the default first. `user_mapping`: of the containers
    that do not ask for the node's own users; None: all have these."""

    node_id: str
    version: str
    hostname: str
    os: str
    architecture: str
    kernel_version: str
    cpus: int
    memory: int
    cgroup_layout: str
    runtimes: tuple[str, ...]
    ipv4_forwarding: bool
    warnings: tuple[str, ...] = field(default=())
    capabilities: tuple[str, ...] = ()
    cgroup_features: frozenset[str] = frozenset()
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    seccomp: bool = False
    apparmor: bool = False
    selinux: bool = False
    recursive_read_only: bool = False
    init: bool = False
    user_mapping: UserMapping | None = None
    overlay_address: str = ""  # by which other nodes reach it; empty: none does


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Bytes."""

    images_size: int
    containers_size: int
    logs_size: int
    volumes_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVolume:
    """`mountpoint`: where its files are on the node. `options`: `type`, `o` and `device` of mount(8). `size` in bytes,
    0 unless asked for."""

    name: str
    mountpoint: str
    options: Mapping[str, str] = field(default_factory=dict)
    size: int = 0


class ExecutorClient(Protocol):
    """Every method raises Unavailable when the node does not answer, DeadlineExceeded, and the errors named with it.
    Every call may be repeated after a lost answer."""

    def meant_for(self, executor_id: str) -> None:
        """From now on any other executor than this one refuses the calls, which then raise Unavailable
        (`ANOTHER_EXECUTOR`)."""

    async def renew_lease(self, after: str, *, ttl: float, deadline: Deadline) -> str:
        """The node's word of this moment, for the next renewal. `after`: the word of the answer before, from which the
        lease then runs for `ttl` seconds; empty: nothing is renewed."""

    async def create(self, spec: ContainerSpec, *, deadline: Deadline) -> None:
        """Lay the container out. Raises FailedPrecondition when it exists with another specification."""

    async def start(self, container_id: str, *, start_id: str, deadline: Deadline) -> JournalEntry:
        """A `Started` or `StartRefused` entry; a repeated `start_id` gets the outcome of the first call."""

    async def signal(self, container_id: str, *, signal: int, deadline: Deadline) -> None:
        """Raises FailedPrecondition when it does not run."""

    async def stop(self, container_id: str, *, signal: int, timeout: int, deadline: Deadline) -> JournalEntry | None:
        """Signal, wait `timeout` seconds (-1: without end), SIGKILL. The `Exited` entry, the `RestartCancelled` one
        when a restart was pending; None when nothing ran."""

    async def pause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        """The `Paused` entry, None when it was frozen already. Raises FailedPrecondition when it does not run."""

    async def unpause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        """The `Unpaused` entry, None when it was not frozen. Raises FailedPrecondition when it does not run."""

    async def update(
        self,
        container_id: str,
        *,
        resources: Resources,
        restart_policy: RestartPolicy,
        published_ports: Sequence[PublishedPort],
        deadline: Deadline,
    ) -> JournalEntry:
        """The `Updated` entry. All limits, without `nano_cpus`, a policy that has its defaults, and all ports. Raises
        FailedPrecondition for what the kernel refuses, AlreadyExists for a port that is taken, ResourceExhausted;
        nothing has changed then."""

    async def read_stats(self, container_ids: Sequence[str], *, deadline: Deadline) -> Sequence[ContainerStats]:
        """Those that run; without ids all of them."""

    async def list_processes(self, container_id: str, *, deadline: Deadline) -> Sequence[Process]:
        """Raises FailedPrecondition when it does not run."""

    async def remove(self, container_id: str, *, deadline: Deadline) -> None:
        """Kill what runs and delete everything of the container. Nothing there: nothing happens."""

    async def snapshot(self, *, deadline: Deadline) -> NodeSnapshot: ...

    def exec(self, spec: ExecSpec, inputs: AsyncIterator[StreamInput]) -> AsyncGenerator[ExecAnswer]:
        """First that it runs, then its output, then its `ExecExited` entry, which one that is detached lacks. Closing
        the answers ends the program. Raises InvalidArgument for what cannot be run, FailedPrecondition."""

    def attach(self, target: AttachTarget, inputs: AsyncIterator[StreamInput]) -> AsyncGenerator[StreamOutput | None]:
        """First None, when the attachment stands; then what the process writes, to its end. One that does not run is
        waited for. Raises ResourceExhausted for a reader that is too slow."""

    async def resize_terminal(self, container_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        """Raises FailedPrecondition when it does not run or has no terminal."""

    async def resize_exec(self, exec_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        """Raises FailedPrecondition when it does not run or has no terminal."""

    def read_logs(self, query: LogQuery) -> AsyncGenerator[Sequence[LogLine]]:
        """Oldest first, as many at once as came together, never none; with `follow` until the container ends."""

    def follow_journal(self, *, journal_id: str, after: int) -> AsyncGenerator[JournalAnswer]:
        """Transitions after a position, without end. Raises OutOfRange when the journal does not know the position."""

    async def load_image(
        self, platform: Platform, chunks: AsyncIterator[bytes], *, deadline: Deadline
    ) -> Sequence[StoredImage]:
        """The images of an archive that are for `platform`. Raises InvalidArgument (`CORRUPT_IMAGE`,
        `UNSUPPORTED_PLATFORM`) and ResourceExhausted."""

    async def import_image(
        self, spec: ImportSpec, chunks: AsyncIterator[bytes], *, deadline: Deadline
    ) -> StoredImage: ...

    async def commit_container(self, spec: CommitSpec, *, deadline: Deadline) -> StoredImage:
        """Raises NotFound, FailedPrecondition, InvalidArgument, ResourceExhausted."""

    def push_image(self, spec: PushSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PushedImage]:
        """The layers' progress, then the image. Closing the answers ends the push, unless another one is the same.
        Raises NotFound, PermissionDenied, FailedPrecondition, ResourceExhausted, Unavailable
        (`REGISTRY_UNAVAILABLE`)."""

    def pull_image(self, spec: PullSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PulledImage]:
        """The layers' progress, then the image. Closing the answers ends the pull, unless another one is the same.
        Raises NotFound, PermissionDenied, InvalidArgument, ResourceExhausted, Unavailable (`REGISTRY_UNAVAILABLE`)."""

    def save_images(self, images: Sequence[SavedImage], *, deadline: Deadline) -> AsyncGenerator[bytes]:
        """One archive of all. Raises NotFound, FailedPrecondition (`LAYER_NOT_RECORDED`), DataLoss."""

    async def get_image(self, image_id: str, *, deadline: Deadline) -> StoredImage:
        """Raises NotFound."""

    async def list_images(self, *, deadline: Deadline) -> Sequence[StoredImage]: ...

    async def remove_image(self, image_id: str, *, deadline: Deadline) -> None:
        """Raises FailedPrecondition while a container on the node uses it."""

    async def create_volume(self, name: str, options: Mapping[str, str], *, deadline: Deadline) -> StoredVolume:
        """Raises FailedPrecondition when it is there with other options."""

    async def remove_volume(self, name: str, *, deadline: Deadline) -> int:
        """The bytes it held; nothing there: nothing happens. Raises FailedPrecondition while a container names it."""

    async def list_volumes(self, *, size: bool, deadline: Deadline) -> Sequence[StoredVolume]: ...

    async def create_network(self, network: StoredNetwork, *, deadline: Deadline) -> StoredNetwork:
        """With what is empty chosen by the node. Raises FailedPrecondition when it is there otherwise or collides with
        what the node has, ResourceExhausted when no subnet is free."""

    async def remove_network(self, network_id: str, *, deadline: Deadline) -> None:
        """Nothing there: nothing happens. Raises FailedPrecondition while a container names it."""

    async def list_networks(self, *, deadline: Deadline) -> Sequence[StoredNetwork]:
        """The default one, `bridge`, too."""

    async def set_overlay_peers(self, network_id: str, underlay: Underlay, *, deadline: Deadline) -> None:
        """Which other nodes an overlay network has, as a whole. Raises FailedPrecondition (reason `NO_SUCH_NETWORK`)
        when the node does not have it."""

    async def set_names_elsewhere(
        self,
        network_id: str,
        containers: Sequence[ContainerElsewhere],
        *,
        version: int,
        renumbered: bool,
        deadline: Deadline,
    ) -> int:
        """What its containers on other nodes are called, as a whole. Returns the version that the node has then: a
        greater one if it was told something newer, unless the versions were `renumbered`. Raises as the one above."""

    async def connect_network(
        self, container_id: str, endpoint: EndpointSpec, *, deadline: Deadline
    ) -> JournalEntry | None:
        """The `NetworkConnected` entry; None when it is attached so already. Raises FailedPrecondition, AlreadyExists
        for a fixed address that is in use, ResourceExhausted; nothing has changed then."""

    async def disconnect_network(
        self, container_id: str, network_id: str, *, deadline: Deadline
    ) -> JournalEntry | None:
        """The `NetworkDisconnected` entry; None when it was not attached."""

    async def facts(self, *, deadline: Deadline) -> NodeFacts:
        """Raises FailedPrecondition (reason `NODE_INCOMPATIBLE`) for an executor that speaks another protocol."""

    async def disk_usage(self, *, deadline: Deadline, containers: Sequence[str] = ()) -> DiskUsage:
        """Of everything; with `containers` only of their writable layers."""

    async def list_changes(self, container_id: str, *, deadline: Deadline) -> Sequence[FileChange]:
        """In the order of their paths. Raises ResourceExhausted when they are too many for one answer."""

    async def put_archive(self, target: ArchiveTarget, chunks: AsyncIterator[bytes], *, deadline: Deadline) -> None:
        """Unpack it, once it is there whole. Raises NotFound for the path, InvalidArgument, FailedPrecondition,
        ResourceExhausted. What was unpacked before an error stays."""

    def get_archive(self, container_id: str, path: str, *, deadline: Deadline) -> AsyncGenerator[PathStat | bytes]:
        """First what the path is, then a tar archive of it. Raises as `put_archive` does."""

    def export_root(self, container_id: str, *, deadline: Deadline) -> AsyncGenerator[bytes]:
        """The root filesystem as a tar archive, without its mounts."""
