"""Who is on which overlay network, on all nodes: kept from the records as they change, for whoever tells the nodes.

Where there is no overlay network nothing of a container's change is looked at.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from api_service.executor_client.networks import ContainerElsewhere
from api_service.nodes.endpoints import dns_names
from api_service.overlays.slices import within_slice
from api_service.records.container import ContainerRecord
from api_service.records.container_repository import ContainerRepository
from api_service.records.network import NetworkPhase, NetworkRecord
from api_service.records.network_repository import NetworkRepository

_log = structlog.get_logger(__name__)

_RETRY = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A running container on a network, and the node that it runs on."""

    node: str
    container: ContainerElsewhere


@dataclass(slots=True, eq=False)
class Interest:
    """Of one node: `networks` are those of which something has changed since they were taken out, `changed` is set when
    there are any."""

    networks: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, *network_ids: str) -> None:
        self.networks.update(network_ids)
        self.changed.set()

    async def taken(self) -> set[str]:
        """Wait until there are some, and take them out."""
        await self.changed.wait()
        taken, self.networks = self.networks, set()
        self.changed.clear()
        return taken


class OverlayView:
    """Run `follow_forever` as a task. To be used on one event loop."""

    def __init__(self, networks: NetworkRepository, containers: ContainerRepository) -> None:
        self._network_records = networks
        self._container_records = containers
        self._networks: dict[str, NetworkRecord] = {}
        self._members: dict[str, dict[str, _Member]] = {}  # by network, then container
        self._interests: set[Interest] = set()
        self._revision = 0
        self._read_at = 0  # all containers were read as of this revision
        self._reading = asyncio.Lock()

    @property
    def revision(self) -> int:
        """Of the store: what is known includes every change up to it."""
        return self._revision

    async def from_elsewhere(self, revision: int) -> bool:
        """Whether the store never had this revision, so that it is another one's."""
        latest = await self._container_records.latest_revision()
        return latest is not None and revision > latest

    def networks(self) -> list[str]:
        """Ids of those that are ready."""
        return list(self._networks)

    def network(self, network_id: str) -> NetworkRecord | None:
        """One that is ready."""
        return self._networks.get(network_id)

    def elsewhere(self, network_id: str, node: str) -> list[ContainerElsewhere]:
        """The network's containers that run on other nodes, by id, at addresses of the slice of theirs: a node has no
        say in what is another's."""
        network, members = self._networks.get(network_id), self._members.get(network_id, {})
        slices = network.overlay.slices if network is not None and network.overlay is not None else {}
        found: list[ContainerElsewhere] = []
        for _, member in sorted(members.items()):
            if member.node != node and (own := slices.get(member.node)) is not None:
                addresses = tuple(each for each in member.container.addresses if within_slice(each, own))
                found.append(dataclasses.replace(member.container, addresses=addresses))
        return found

    @contextmanager
    def interest(self) -> Iterator[Interest]:
        """What changes while the block runs; at first everything has."""
        interest = Interest()
        interest.add(*self._networks)
        self._interests.add(interest)
        try:
            yield interest
        finally:
            self._interests.discard(interest)

    async def follow_forever(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow_networks(), name="follow overlay networks")
                    group.create_task(self._follow_containers(), name="follow containers on overlay networks")
            except ExceptionGroup as errors:
                # Not even a bug must end it for good. It begins anew, which leaves out nothing.
                _log.warning("overlay networks not followed", error=str(errors.exceptions[0]), retry_in=_RETRY)
            await asyncio.sleep(_RETRY)

    async def _follow_networks(self) -> None:
        self._networks.clear()
        self._members.clear()
        async for network_id, record in self._network_records.watch():
            if record is None:
                self._forget(network_id)
            else:
                await self._take(record)

    async def _follow_containers(self) -> None:
        await self._read_containers()
        async for seen in self._container_records.watch_all(after=self._revision, about=self._about):
            async with self._reading:
                if seen.revision > self._read_at:
                    self._revision = max(self._revision, seen.revision)
                    self._see(seen.id, seen.record)

    async def _take(self, network: NetworkRecord) -> None:
        if network.overlay is None or network.phase is not NetworkPhase.READY:
            self._forget(network.id)
            return
        before = self._networks.get(network.id)
        self._networks[network.id] = network
        if before is None:
            await self._read_containers()  # those that were on it before it was known here
        if before is None or before.overlay != network.overlay:
            self._tell(network.id)

    def _forget(self, network_id: str) -> None:
        self._networks.pop(network_id, None)
        self._members.pop(network_id, None)

    async def _read_containers(self) -> None:
        async with self._reading:
            revision = await self._container_records.revision()
            if self._networks:
                known = {record.id: record for record in await self._container_records.all()}
                gone = {one for members in self._members.values() for one in members} - known.keys()
                for container_id in (*known, *gone):
                    self._see(container_id, known.get(container_id))
            self._read_at = revision
            self._revision = max(self._revision, revision)

    def _about(self, value: bytes) -> bool:
        """Whether it may be a container on one of the networks, told without decoding it."""
        return any(network_id.encode() in value for network_id in self._networks)

    def _see(self, container_id: str, record: ContainerRecord | None) -> None:
        now = dict(_memberships(record)) if record is not None else {}
        for network_id in self._networks:
            members = self._members.setdefault(network_id, {})
            member = now.get(network_id)
            if members.get(container_id) == member:
                continue
            if member is None:
                del members[container_id]
            else:
                members[container_id] = member
            self._tell(network_id)

    def _tell(self, network_id: str) -> None:
        for interest in self._interests:
            interest.add(network_id)


def _memberships(record: ContainerRecord) -> Iterator[tuple[str, _Member]]:
    asked = {settings.network_id: settings for settings in record.networking_config.endpoints.values()}
    for endpoint in record.network.endpoints:
        settings = asked.get(endpoint.network_id)
        if settings is None:
            continue
        container = ContainerElsewhere(
            id=record.id,
            names=dns_names(record, settings),
            addresses=tuple(filter(None, (endpoint.ip_address, endpoint.global_ipv6_address))),
        )
        yield endpoint.network_id, _Member(node=record.node, container=container)
