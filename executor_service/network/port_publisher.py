"""Published ports on this host: leases first, then the kernel's rules, one container at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from secrets import randbelow
from typing import Protocol

import structlog

from common.errors import FailedPrecondition
from common.sqlite import Database
from executor_service.network import conntrack, firewall, port_leases, port_rules
from executor_service.network.listening_sockets import listening_sockets, socket_owner
from executor_service.network.port_allocation import Allocation, Targets
from executor_service.network.port_leases import Lease, Leases
from executor_service.network.worker import to_the_end
from executor_service.ports import BoundPort, PublishedPort

_log = structlog.get_logger(__name__)

_SYSCTLS = Path("/proc/sys/net/ipv4")
_FALLBACK_RANGE = (49153, 65535)  # Docker's, where the kernel tells none


class PortPublisher(Protocol):
    """Ports of the host that lead to containers. State is durable; every method is idempotent."""

    async def publish(
        self, container_id: str, ports: Sequence[PublishedPort], *, targets: Targets
    ) -> Sequence[BoundPort]:
        """Lead the ports to these addresses of the container, and what else was published of it nowhere. Raises
        AlreadyExists (`PORT_ALLOCATED`) for a port that is taken, ResourceExhausted when there is none left to choose,
        FailedPrecondition for an address that the host, or a family that the container, does not have."""

    async def withdraw(self, container_id: str) -> None:
        """The container does not run any more: nothing leads to it. Ports that were chosen here stay its own."""

    async def forget(self, container_id: str) -> None:
        """The container is removed: nothing is its own any more."""

    async def reconcile(self, *, running: Collection[str], known: Collection[str]) -> None:
        """At start-up, to be called before the first publish: withdraw and forget what is of others."""


class HostPorts:
    """PortPublisher over this host's kernel. `database` must have `port_leases.SCHEMA`, `table` its rules."""

    def __init__(self, *, table: str, database: Database) -> None:
        self._table = table
        self._database = database
        self._leases = Leases()
        self._changing = asyncio.Lock()

    async def publish(
        self, container_id: str, ports: Sequence[PublishedPort], *, targets: Targets
    ) -> Sequence[BoundPort]:
        if not ports and not self._leases.of(container_id):
            return ()
        async with self._changing:
            return await to_the_end(self._publish(container_id, ports, targets))

    async def withdraw(self, container_id: str) -> None:
        if not any(lease.target for lease in self._leases.of(container_id)):
            return
        async with self._changing:
            await to_the_end(self._withdraw(self._leases.of(container_id), forget=False))

    async def forget(self, container_id: str) -> None:
        if not self._leases.of(container_id):
            return
        async with self._changing:
            await to_the_end(self._withdraw(self._leases.of(container_id), forget=True))

    async def reconcile(self, *, running: Collection[str], known: Collection[str]) -> None:
        async with self._changing:
            self._leases = Leases(await self._database.read(port_leases.everything))
            for container_id in self._leases.containers() - set(running):
                leases = self._leases.of(container_id)
                await to_the_end(self._withdraw(leases, forget=container_id not in known))

    async def _publish(
        self, container_id: str, ports: Sequence[PublishedPort], targets: Targets
    ) -> Sequence[BoundPort]:
        before = self._leases.of(container_id)
        given, evicted = await asyncio.to_thread(self._allocate, container_id, ports, targets)
        if set(given) != set(before):
            await self._record(gone=[*before, *evicted], new=given)
            await asyncio.to_thread(self._lead, gone=[lease for lease in before if lease.target], new=given)
        return [lease.bound for lease in given]

    def _allocate(
        self, container_id: str, ports: Sequence[PublishedPort], targets: Targets
    ) -> tuple[Sequence[Lease], Sequence[Lease]]:
        # What is published already stays so while its address is gone for a while.
        served = {lease.host_ip for lease in self._leases.of(container_id) if lease.target}
        _check_addresses({port.host_ip for port in ports if port.host_ip} - served)
        allocation = Allocation(
            container_id=container_id,
            targets=targets,
            leases=self._leases,
            sockets=listening_sockets({port.protocol for port in ports}),
            candidates=_candidates(),
            process=socket_owner,
        )
        return allocation.give(ports), allocation.evicted()

    async def _withdraw(self, leases: Sequence[Lease], *, forget: bool) -> None:
        active = [lease for lease in leases if lease.target]
        kept = [] if forget else [_idle(lease) for lease in leases if lease.chosen]
        await self._record(gone=leases, new=kept)
        if active:
            await asyncio.to_thread(self._lead, gone=active, new=())

    async def _record(self, *, gone: Sequence[Lease], new: Sequence[Lease]) -> None:
        def committed(_: None) -> None:
            for lease in gone:
                self._leases.discard(lease)
            for lease in new:
                self._leases.add(lease)

        await self._database.write(partial(port_leases.change, gone=gone, new=new), on_commit=committed)

    def _lead(self, *, gone: Sequence[Lease], new: Sequence[Lease]) -> None:
        commands = port_rules.remove(self._table, gone) + port_rules.add(self._table, new)
        try:
            firewall.run_commands(commands)
        except FailedPrecondition:
            # Something is not as it was left: a change that a crash cut short, or somebody else's hand.
            firewall.run_commands(port_rules.replace_all(self._table, self._leases.all()))
        try:
            if gone:
                conntrack.forget_translated(gone)
            conntrack.forget_datagrams_to(new)
        except OSError as error:
            _log.warning("connections of a published port are not forgotten", error=str(error))


def _idle(lease: Lease) -> Lease:
    return Lease(
        container_id=lease.container_id,
        protocol=lease.protocol,
        host_ip=lease.host_ip,
        host_port=lease.host_port,
        container_port=lease.container_port,
        chosen=lease.chosen,
    )


def _check_addresses(host_ips: Collection[str]) -> None:
    for host_ip in host_ips:
        family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((host_ip, 0))
            except OSError as error:
                raise FailedPrecondition(
                    f"{host_ip} is no address of this host ({error.strerror}); publish the port on one that it has",
                    resource_type="address",
                    resource_name=host_ip,
                    reason="NO_SUCH_ADDRESS",
                ) from error


def _candidates() -> Iterator[int]:
    """The ports that the kernel gives to whoever asks for none, less the reserved ones, from a random one on."""
    low, high = _FALLBACK_RANGE
    reserved: set[int] = set()
    with suppress(OSError, ValueError):
        low, high = map(int, (_SYSCTLS / "ip_local_port_range").read_text().split())
    with suppress(OSError, ValueError):
        for part in (_SYSCTLS / "ip_local_reserved_ports").read_text().split(","):
            if part.strip():
                first, _, last = part.strip().partition("-")
                reserved.update(range(int(first), int(last or first) + 1))
    count = high - low + 1
    begin = randbelow(count)
    for step in range(count):
        number = low + (begin + step) % count
        if number not in reserved:
            yield number


_: type[PortPublisher] = HostPorts
