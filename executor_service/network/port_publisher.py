"""Published ports on this host: the kernel's rules first, then the leases, in one commit with what they are for.

What was led somewhere and never recorded leads nowhere again: `revert` sees to that, and after a crash the next
executor, which makes the rules of the leases on record alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from common.errors import FailedPrecondition
from common.sqlite import Database
from executor_service.network import conntrack, firewall, port_leases, port_rules
from executor_service.network.listening_sockets import listening_sockets, socket_owner
from executor_service.network.loopback_forwarder import NO_FORWARDER, LoopbackForwarder
from executor_service.network.port_allocation import Allocation, Targets
from executor_service.network.port_leases import Lease, Leases
from executor_service.network.port_space import candidates, check_addresses
from executor_service.network.publication import PortPublisher, Publication
from executor_service.ports import LOOPBACK_IPV6, PortProtocol, PublishedPort
from executor_service.threads import to_the_end

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class _Change:
    """The leases of one container before and after, and those of others that gave way. What it gives up stays held
    until that is on record: it may be wanted back."""

    before: Sequence[Lease]
    given: Sequence[Lease]
    evicted: Sequence[Lease] = ()
    recorded: bool = False

    @property
    def given_up(self) -> list[Lease]:
        kept = {lease.key for lease in self.given}
        return [lease for lease in self.before if lease.key not in kept]

    @property
    def replaced(self) -> list[Lease]:
        kept = {lease.key for lease in self.given}
        return [lease for lease in self.before if lease.key in kept]


class HostPorts:
    """PortPublisher over this host's kernel. `database` must have `port_leases.SCHEMA`, `table` its rules."""

    def __init__(self, *, table: str, database: Database) -> None:
        self._table = table
        self._database = database
        self._forwarder = NO_FORWARDER
        self._leases = Leases()
        self._loaded = False
        self._changes: dict[str, _Change] = {}
        self._changing = asyncio.Lock()  # whoever has it may change `_leases`, which threads read meanwhile

    @classmethod
    @asynccontextmanager
    async def open(cls, *, table: str, database: Database) -> AsyncIterator[HostPorts]:
        """With a forwarder for [::1], whose port belongs into the table's rules."""
        ports = cls(table=table, database=database)
        taken = {lease.host_port for lease in await database.read(port_leases.everything)}
        async with LoopbackForwarder.open(ports._forwarded_to, taken=taken) as ports._forwarder:
            yield ports

    @property
    def loopback_forwarder(self) -> int:
        """The port of [::1] on which it listens; 0: there is none."""
        return self._forwarder.port

    async def publish(self, container_id: str, ports: Sequence[PublishedPort], *, targets: Targets) -> Publication:
        if not ports and not self._leases.of(container_id):
            return Publication()
        async with self._changing:
            return await to_the_end(self._publish(container_id, ports, targets))

    async def suspend(self, container_id: str) -> Publication:
        if not self._leases.of(container_id):
            return Publication()
        async with self._changing:
            return await to_the_end(self._suspend(container_id))

    async def revert(self, container_id: str) -> None:
        if container_id not in self._changes:
            return
        async with self._changing:
            await to_the_end(self._revert(container_id))

    async def withdraw(self, container_id: str) -> None:
        if container_id not in self._changes and not any(lease.target for lease in self._leases.of(container_id)):
            return
        async with self._changing:
            await to_the_end(self._withdraw(container_id))

    async def forget(self, container_id: str) -> None:
        evicted = any(lease.container_id == container_id for one in self._changes.values() for lease in one.evicted)
        if not evicted and not self._leases.of(container_id):
            return
        async with self._changing:
            await to_the_end(self._forget(container_id))

    async def reconcile(self, *, running: Collection[str], known: Collection[str]) -> None:
        async with self._changing:
            self._leases = Leases(await self._database.read(port_leases.everything))
            self._loaded = True
            for container_id in self._leases.containers() - set(running):
                await to_the_end((self._withdraw if container_id in known else self._forget)(container_id))

    async def lead_again(self) -> None:
        """The table was made anew of the leases on record, beside which there may be some that are not yet."""
        async with self._changing:
            if self._loaded:
                await to_the_end(asyncio.to_thread(self._lead_all))

    async def _publish(self, container_id: str, ports: Sequence[PublishedPort], targets: Targets) -> Publication:
        await self._revert(container_id)
        before = self._leases.of(container_id)
        allocation = await asyncio.to_thread(self._allocate, container_id, ports, targets)
        given = allocation.given.of(container_id)
        kept = {lease.key for lease in given}
        left = [_idle(lease) for lease in before if lease.chosen and lease.key not in kept]
        await self._change(container_id, _Change(before=before, given=[*given, *left], evicted=allocation.evicted()))
        return self._publication(container_id, given)

    async def _suspend(self, container_id: str) -> Publication:
        await self._revert(container_id)
        before = self._leases.of(container_id)
        await self._change(
            container_id, _Change(before=before, given=[_idle(lease) for lease in before if lease.chosen])
        )
        return self._publication(container_id, ())

    def _allocate(self, container_id: str, ports: Sequence[PublishedPort], targets: Targets) -> Allocation:
        # What is published already stays so while its address is gone for a while.
        served = {lease.host_ip for lease in self._leases.of(container_id) if lease.target}
        check_addresses({port.host_ip for port in ports if port.host_ip} - served)
        allocation = Allocation(
            container_id=container_id,
            targets=targets,
            leases=self._leases,
            sockets=lambda: listening_sockets({port.protocol for port in ports}),
            candidates=candidates(),
            process=socket_owner,
        )
        allocation.give(ports)
        return allocation

    async def _change(self, container_id: str, change: _Change) -> None:
        """In the kernel and here."""
        if set(change.given) == set(change.before):
            return
        before, given = set(change.before), set(change.given)
        gone = [lease for lease in change.before if lease.target and lease not in given]
        new = [lease for lease in change.given if lease.target and lease not in before]
        await self._lead(gone=gone, new=new)
        self._give_up_evicted(container_id)
        self._replace(gone=[*change.replaced, *change.evicted], new=change.given)
        self._changes[container_id] = change

    async def _revert(self, container_id: str) -> None:
        self._settle()
        change = self._changes.get(container_id)
        if change is None:
            return
        before, given = set(change.before), set(change.given)
        gone = [lease for lease in change.given if lease.target and lease not in before]
        new = [lease for lease in change.before if lease.target and lease not in given]
        await self._lead(gone=gone, new=new)
        self._replace(gone=change.given, new=[*change.replaced, *change.evicted])
        del self._changes[container_id]

    async def _withdraw(self, container_id: str) -> None:
        publication = await self._suspend(container_id)
        await self._database.write(publication.write, on_commit=lambda _: publication.committed())

    async def _forget(self, container_id: str) -> None:
        await self._revert(container_id)
        change = _Change(before=self._leases.of(container_id), given=())
        await self._change(container_id, change)
        self._give_up_evicted(container_id)

        def committed(_: None) -> None:
            change.recorded = True

        await self._database.write(partial(port_leases.replace, container_id=container_id), on_commit=committed)

    def _publication(self, container_id: str, given: Iterable[Lease]) -> Publication:
        bound = tuple(lease.bound for lease in given)
        change = self._changes.get(container_id)
        if change is None:
            return Publication(bound=bound)

        def committed() -> None:
            change.recorded = True

        write = partial(
            port_leases.replace, container_id=container_id, evicted=tuple(change.evicted), new=tuple(change.given)
        )
        return Publication(bound=bound, changed=True, write=write, committed=committed)

    def _settle(self) -> None:
        """What is on record cannot be wanted back any more."""
        for container_id in [name for name, change in self._changes.items() if change.recorded]:
            self._replace(gone=self._changes.pop(container_id).given_up, new=())

    def _give_up_evicted(self, container_id: str) -> None:
        """The container has other leases from now on: what once gave way of it is not put back."""
        for change in self._changes.values():
            change.evicted = [lease for lease in change.evicted if lease.container_id != container_id]

    def _replace(self, *, gone: Iterable[Lease], new: Iterable[Lease]) -> None:
        for lease in gone:
            self._leases.discard(lease)
        for lease in new:
            self._leases.add(lease)

    def _led(self) -> list[Lease]:
        """Those that the kernel's rules are for just now."""
        given_up = {lease for change in self._changes.values() for lease in change.given_up}
        return [lease for lease in self._leases.all() if lease.target and lease not in given_up]

    def _lead_all(self, *, gone: Collection[Lease] = (), new: Collection[Lease] = ()) -> None:
        led = [*(lease for lease in self._led() if lease not in gone), *new]
        firewall.run_commands(port_rules.replace_all(self._table, led))

    async def _lead(self, *, gone: Sequence[Lease], new: Sequence[Lease]) -> None:
        """Raises FailedPrecondition; then the rules are what they were."""
        if gone or new:
            await asyncio.to_thread(self._change_rules, gone, new)
            self._forwarder.drop({lease.host_port for lease in gone if lease.forwarded})

    def _forwarded_to(self, port: int) -> tuple[str, int] | None:
        for lease in self._leases.excluding(PortProtocol.TCP, LOOPBACK_IPV6, port):
            if lease.target:
                return lease.target, lease.container_port
        return None

    def _change_rules(self, gone: Sequence[Lease], new: Sequence[Lease]) -> None:
        try:
            firewall.run_commands(port_rules.remove(self._table, gone) + port_rules.add(self._table, new))
        except FailedPrecondition:
            # Something is not as it was left: a change that a crash cut short, or somebody else's hand.
            self._lead_all(gone=set(gone), new=new)
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


_: type[PortPublisher] = HostPorts
