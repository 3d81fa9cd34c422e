"""Which ports of the host a container gets: pure, over the leases there are and the sockets that listen.

A lease is for one address; `0.0.0.0` and `::` stand for all of their family and exclude every other lease of the port
in it. One that the node chose is kept while its container does not run, so that it has the same port again; it gives
way when somebody asks for just that port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from common.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from executor_service.network.port_leases import ALL_IPV4, ALL_IPV6, Lease, Leases, overlap
from executor_service.ports import LOOPBACK_IPV6, PortProtocol, PublishedPort

_Purpose = tuple[PortProtocol, int, tuple[str, ...]]  # protocol, the container's port, addresses of the host


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningSocket:
    """`dual`: an IPv6 socket that takes IPv4 too. `inode` leads to its process."""

    protocol: PortProtocol
    address: str
    port: int
    dual: bool
    inode: int

    def takes(self, host_ip: str) -> bool:
        return overlap(self.address, host_ip) or (self.dual and overlap(ALL_IPV4, host_ip))


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The container's addresses; empty where its network has none of the family."""

    ipv4: str
    ipv6: str

    def of(self, host_ip: str) -> str:
        if host_ip == LOOPBACK_IPV6:  # forwarded, not translated: either family will do
            return self.ipv6 or self.ipv4
        return self.ipv6 if ":" in host_ip else self.ipv4


@dataclass(slots=True, kw_only=True)
class Allocation:
    """One container's. `sockets`: those that listen, asked for when it matters. `candidates`: the ports of the host
    that may be chosen. `process`: (pid, command) of a socket's inode, for people."""

    container_id: str
    targets: Targets
    leases: Leases
    sockets: Callable[[], Iterable[ListeningSocket]]
    candidates: Iterable[int]
    process: Callable[[int], tuple[str, str]]
    given: Leases = field(default_factory=Leases)
    _listening: dict[tuple[PortProtocol, int], list[ListeningSocket]] | None = None

    def give(self, ports: Iterable[PublishedPort]) -> Sequence[Lease]:
        """A lease for each port and address. Raises AlreadyExists for a port that is taken, ResourceExhausted when
        there is none left to choose, FailedPrecondition for an address whose family the container's network lacks."""
        kept, candidates = self._kept(), iter(self.candidates)
        for port in ports:
            host_ips = self._host_ips(port)
            before = kept.get((port.protocol, port.container_port, host_ips), [])
            number = self._wanted(port, host_ips, before) if port.host_port else None
            if number is None:
                number = self._any(port, host_ips, before, candidates)
            for host_ip in host_ips:
                self.given.add(self._lease(port, host_ip, number))
        return self.given.of(self.container_id)

    def evicted(self) -> Sequence[Lease]:
        """Leases of containers that do not run, which give way to those given."""
        return [
            other
            for lease in self.given.of(self.container_id)
            for other in self.leases.excluding(lease.protocol, lease.host_ip, lease.host_port)
            if other.container_id != self.container_id
        ]

    def _lease(self, port: PublishedPort, host_ip: str, number: int) -> Lease:
        return Lease(
            container_id=self.container_id,
            protocol=port.protocol,
            host_ip=host_ip,
            host_port=number,
            container_port=port.container_port,
            chosen=port.host_port == 0 or port.host_port != port.host_port_last,
            target=self.targets.of(host_ip),
        )

    def _host_ips(self, port: PublishedPort) -> tuple[str, ...]:
        asked = (port.host_ip,) if port.host_ip else (ALL_IPV4, ALL_IPV6)
        host_ips = tuple(host_ip for host_ip in asked if self.targets.of(host_ip))
        if not host_ips:
            raise FailedPrecondition(
                f"port {port.container_port}/{port.protocol} cannot be published on {port.host_ip or 'the host'}: the "
                "container's network has no addresses of that family",
                resource_type="container",
                resource_name=self.container_id,
                reason="NO_ADDRESS",
            )
        return host_ips

    def _kept(self) -> dict[_Purpose, list[int]]:
        """The ports that it had before."""
        host_ips: dict[tuple[PortProtocol, int, int], list[str]] = {}
        for lease in self.leases.of(self.container_id):
            host_ips.setdefault((lease.protocol, lease.container_port, lease.host_port), []).append(lease.host_ip)
        kept: dict[_Purpose, list[int]] = {}
        for (protocol, container_port, number), addresses in host_ips.items():
            kept.setdefault((protocol, container_port, tuple(sorted(addresses))), []).append(number)
        return kept

    def _wanted(self, port: PublishedPort, host_ips: tuple[str, ...], before: Sequence[int]) -> int:
        wanted = range(port.host_port, port.host_port_last + 1)
        for patient in (True, False):
            numbers: list[int] = [*(number for number in before if number in wanted), *wanted]
            for number in numbers:
                if self._holder(port.protocol, host_ips, number, patient=patient) is None:
                    return number
        raise self._taken(port, host_ips)

    def _any(
        self, port: PublishedPort, host_ips: tuple[str, ...], before: Sequence[int], candidates: Iterator[int]
    ) -> int:
        numbers: Iterator[int] = chain(before, candidates)
        for number in numbers:
            if self._holder(port.protocol, host_ips, number, patient=True) is None:
                return number
        raise ResourceExhausted(
            f"port {port.container_port}/{port.protocol}: every port of net.ipv4.ip_local_port_range is taken; remove "
            "containers that are no longer needed, or widen it",
            reason="PORTS_EXHAUSTED",
        )

    def _holder(
        self, protocol: PortProtocol, host_ips: tuple[str, ...], number: int, *, patient: bool
    ) -> Lease | ListeningSocket | None:
        """`patient`: leases of containers that do not run count too."""
        for host_ip in host_ips:
            for lease in self.given.excluding(protocol, host_ip, number):
                return lease
            for lease in self.leases.excluding(protocol, host_ip, number):
                if lease.container_id != self.container_id and (lease.target or patient):
                    return lease
            for socket in () if self._leads(protocol, host_ip, number) else self._sockets(protocol, number):
                if socket.takes(host_ip):
                    return socket
        return None

    def _leads(self, protocol: PortProtocol, host_ip: str, number: int) -> bool:
        """It is the container's already, whoever has opened a socket there since."""
        lease = self.leases.find(self.container_id, (protocol, host_ip, number))
        return lease is not None and lease.target != ""

    def _sockets(self, protocol: PortProtocol, number: int) -> Sequence[ListeningSocket]:
        if self._listening is None:
            self._listening = {}
            for socket in self.sockets():
                self._listening.setdefault((socket.protocol, socket.port), []).append(socket)
        return self._listening.get((protocol, number), ())

    def _taken(self, port: PublishedPort, host_ips: tuple[str, ...]) -> AlreadyExists:
        single = port.host_port == port.host_port_last
        wanted = f"{port.host_port}" if single else f"{port.host_port}-{port.host_port_last}"
        holder = self._holder(port.protocol, host_ips, port.host_port, patient=False)
        assert holder is not None
        if isinstance(holder, Lease):
            owner, who = holder.container_id, f"container {holder.container_id!r}"
        else:
            owner, command = self.process(holder.inode)
            who = f"process {owner} ({command})" if owner else "a process of the host"
        address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or ALL_IPV4
        what = "port is already allocated" if single else f"all ports are already allocated, {port.host_port}"
        return AlreadyExists(
            f"bind for {address}:{wanted}/{port.protocol} failed: {what} by {who}; stop that, or publish another port",
            resource_type="port",
            resource_name=f"{wanted}/{port.protocol}",
            owner=owner,
            reason="PORT_ALLOCATED",
        )
