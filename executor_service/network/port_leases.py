"""Leases of ports of the host, as values and as rows of the node's state database.

A row says where the rule leads while the container runs: the kernel's rules can be made of the rows alone. It is
written in the commit of what the port is published for, so that a crash leaves both or neither.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from executor_service.ports import LOOPBACK_IPV6, BoundPort, PortProtocol

SCHEMA = """
CREATE TABLE IF NOT EXISTS port_leases (
    protocol TEXT NOT NULL,
    host_ip TEXT NOT NULL,       -- 0.0.0.0 and :: stand for all
    host_port INTEGER NOT NULL,
    container_id TEXT NOT NULL,
    container_port INTEGER NOT NULL,
    chosen INTEGER NOT NULL,     -- by the node: kept while the container does not run
    target TEXT NOT NULL,        -- the container's address; empty while it does not run
    PRIMARY KEY (protocol, host_port, host_ip)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS port_leases_by_container ON port_leases (container_id);
"""

ALL_IPV4, ALL_IPV6 = "0.0.0.0", "::"
_EVERYWHERE = frozenset({ALL_IPV4, ALL_IPV6})
_COLUMNS = "protocol, host_ip, host_port, container_id, container_port, chosen, target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One port of one address of the host, which leads to a container's. `chosen`: by the node. `target`: the
    container's address, empty while it does not run."""

    container_id: str
    protocol: PortProtocol
    host_ip: str
    host_port: int
    container_port: int
    chosen: bool
    target: str = ""

    @property
    def key(self) -> tuple[PortProtocol, str, int]:
        return self.protocol, self.host_ip, self.host_port

    @property
    def forwarded(self) -> bool:
        """It is published on ::1, alone or with all addresses."""
        return self.protocol is PortProtocol.TCP and self.host_ip in (ALL_IPV6, LOOPBACK_IPV6)

    @property
    def bound(self) -> BoundPort:
        return BoundPort(
            host_ip=self.host_ip,
            host_port=self.host_port,
            container_port=self.container_port,
            protocol=self.protocol,
        )


def overlap(one: str, other: str) -> bool:
    """Whether two addresses of leases exclude each other."""
    if (":" in one) is not (":" in other):
        return False
    return one == other or one in _EVERYWHERE or other in _EVERYWHERE


class Leases:
    """Leases by port and by container."""

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self._by_port: dict[tuple[PortProtocol, int], list[Lease]] = {}
        self._by_container: dict[str, dict[tuple[PortProtocol, str, int], Lease]] = {}
        for lease in leases:
            self.add(lease)

    def add(self, lease: Lease) -> None:
        self._by_port.setdefault((lease.protocol, lease.host_port), []).append(lease)
        self._by_container.setdefault(lease.container_id, {})[lease.key] = lease

    def discard(self, lease: Lease) -> None:
        own, port = self._by_container[lease.container_id], (lease.protocol, lease.host_port)
        del own[lease.key]
        if not own:
            del self._by_container[lease.container_id]
        self._by_port[port].remove(lease)
        if not self._by_port[port]:
            del self._by_port[port]

    def of(self, container_id: str) -> Sequence[Lease]:
        return tuple(self._by_container.get(container_id, {}).values())

    def find(self, container_id: str, key: tuple[PortProtocol, str, int]) -> Lease | None:
        return self._by_container.get(container_id, {}).get(key)

    def all(self) -> Sequence[Lease]:
        return [lease for own in self._by_container.values() for lease in own.values()]

    def containers(self) -> set[str]:
        return set(self._by_container)

    def excluding(self, protocol: PortProtocol, host_ip: str, port: int) -> Iterator[Lease]:
        """Those beside which there can be no lease of this address."""
        for lease in self._by_port.get((protocol, port), ()):
            if overlap(lease.host_ip, host_ip):
                yield lease


def everything(connection: sqlite3.Connection) -> list[Lease]:
    statement = f"SELECT {_COLUMNS} FROM port_leases ORDER BY protocol, host_port, host_ip"  # noqa: S608  constant
    return [_lease(row) for row in connection.execute(statement)]


def replace(
    connection: sqlite3.Connection, *, container_id: str, evicted: Iterable[Lease] = (), new: Iterable[Lease] = ()
) -> None:
    """Give a container these and no others. `evicted`: others' that give way to them."""
    connection.execute("DELETE FROM port_leases WHERE container_id = ?", (container_id,))
    connection.executemany(
        "DELETE FROM port_leases WHERE protocol = ? AND host_ip = ? AND host_port = ?",
        [(lease.protocol.value, lease.host_ip, lease.host_port) for lease in evicted],
    )
    connection.executemany(
        f"INSERT INTO port_leases ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  constant
        [
            (
                lease.protocol.value,
                lease.host_ip,
                lease.host_port,
                lease.container_id,
                lease.container_port,
                int(lease.chosen),
                lease.target,
            )
            for lease in new
        ],
    )


def active(connection: sqlite3.Connection) -> list[Lease]:
    """Those of containers that run, or ran when last seen."""
    return [lease for lease in everything(connection) if lease.target]


def _lease(row: tuple[str, str, int, str, int, int, str]) -> Lease:
    protocol, host_ip, host_port, container_id, container_port, chosen, target = row
    return Lease(
        container_id=container_id,
        protocol=PortProtocol(protocol),
        host_ip=host_ip,
        host_port=host_port,
        container_port=container_port,
        chosen=bool(chosen),
        target=target,
    )
