"""Networks, sandboxes, their endpoints and address leases as rows of the node's state database.

A row is committed before anything is made in the kernel, so whatever a crash leaves behind has a record. Whether a
sandbox was finished is not written down: its pin says so (see pins).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from pydantic import TypeAdapter

from common.errors import AlreadyExists, InvalidArgument, ResourceExhausted, Violation
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.network.ipam import next_free
from executor_service.network.mac import checked_mac, random_mac
from executor_service.network.network import Network, Subnet

SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL        -- JSON, as it stands
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS network_sandboxes (
    token TEXT PRIMARY KEY,      -- names the pin; never used twice
    sandbox_id TEXT UNIQUE,      -- NULL while nobody has asked for it: a prepared one
    mode TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS network_members (
    member TEXT PRIMARY KEY,     -- the containers in it: the one it was made for, and those that share it
    sandbox TEXT NOT NULL REFERENCES network_sandboxes (token) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS network_members_by_sandbox ON network_members (sandbox);
CREATE TABLE IF NOT EXISTS network_endpoints (
    token TEXT PRIMARY KEY,      -- names the veth; never used twice
    sandbox TEXT NOT NULL REFERENCES network_sandboxes (token) ON DELETE CASCADE,
    network TEXT NOT NULL,       -- its id
    interface TEXT NOT NULL,
    mac_address TEXT NOT NULL,
    ipv4_address TEXT NOT NULL,  -- empty without one, as the next
    ipv6_address TEXT NOT NULL,
    gateway_priority INTEGER NOT NULL,
    UNIQUE (sandbox, network),
    UNIQUE (sandbox, interface)
);
CREATE TABLE IF NOT EXISTS network_leases (
    network TEXT NOT NULL,
    address BLOB NOT NULL,       -- 4 or 16 bytes, big-endian
    endpoint TEXT NOT NULL REFERENCES network_endpoints (token) ON DELETE CASCADE,
    PRIMARY KEY (network, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS network_leases_by_endpoint ON network_leases (endpoint);
CREATE TABLE IF NOT EXISTS network_cursors (
    network TEXT NOT NULL,
    version INTEGER NOT NULL,    -- of IP: 4 or 6
    address BLOB NOT NULL,       -- the last one given
    PRIMARY KEY (network, version)
) WITHOUT ROWID;
"""

_NETWORK = TypeAdapter(Network)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecord:
    """A row. The addresses are empty where the network has none of the family."""

    token: str
    network_id: str
    interface: str
    mac_address: str
    ipv4_address: str = ""
    ipv6_address: str = ""
    gateway_priority: int = 0

    def answers(self, spec: EndpointSpec) -> bool:
        """Whether it is what the specification asks for, whatever was chosen for what that leaves open."""
        return (
            self.network_id == spec.network_id
            and spec.mac_address in {"", self.mac_address}
            and spec.ipv4_address in {"", self.ipv4_address}
            and spec.ipv6_address in {"", self.ipv6_address}
            and self.gateway_priority == spec.gateway_priority
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRecord:
    """A row, with its endpoints in the order of their interfaces. `sandbox_id` None: prepared ahead of time, nobody's
    yet."""

    token: str
    sandbox_id: str | None
    mode: NetworkMode
    endpoints: tuple[EndpointRecord, ...] = ()


def networks(connection: sqlite3.Connection) -> list[Network]:
    rows = connection.execute("SELECT network FROM networks ORDER BY id")
    return [_NETWORK.validate_json(text) for (text,) in rows]


def insert_network(connection: sqlite3.Connection, network: Network) -> None:
    connection.execute("INSERT INTO networks VALUES (?, ?)", (network.id, _NETWORK.dump_json(network).decode()))


def delete_network(connection: sqlite3.Connection, network_id: str) -> None:
    connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))
    connection.execute("DELETE FROM network_cursors WHERE network = ?", (network_id,))


def users(connection: sqlite3.Connection, network_id: str) -> list[str]:
    """Ids of the sandboxes with an endpoint on the network, the prepared ones left out."""
    statement = (
        "SELECT sandbox_id FROM network_sandboxes JOIN network_endpoints ON sandbox = network_sandboxes.token "
        "WHERE network = ? AND sandbox_id IS NOT NULL ORDER BY sandbox_id"
    )
    return [sandbox_id for (sandbox_id,) in connection.execute(statement, (network_id,))]


def find(connection: sqlite3.Connection, sandbox_id: str) -> SandboxRecord | None:
    return _one(connection, "SELECT token, sandbox_id, mode FROM network_sandboxes WHERE sandbox_id = ?", sandbox_id)


def find_by_member(connection: sqlite3.Connection, member: str) -> SandboxRecord | None:
    statement = (
        "SELECT token, sandbox_id, mode FROM network_sandboxes JOIN network_members ON sandbox = token WHERE member = ?"
    )
    return _one(connection, statement, member)


def everything(connection: sqlite3.Connection) -> list[SandboxRecord]:
    rows = connection.execute("SELECT token, sandbox_id, mode FROM network_sandboxes ORDER BY sandbox_id").fetchall()
    return [_record(connection, row) for row in rows]


def insert(connection: sqlite3.Connection, record: SandboxRecord) -> None:
    """Without its endpoints. Raises sqlite3.IntegrityError when the sandbox id has a record already."""
    connection.execute(
        "INSERT INTO network_sandboxes VALUES (?, ?, ?)", (record.token, record.sandbox_id, record.mode.value)
    )


def give(connection: sqlite3.Connection, *, token: str, sandbox_id: str) -> None:
    """Make a prepared sandbox somebody's."""
    connection.execute("UPDATE network_sandboxes SET sandbox_id = ? WHERE token = ?", (sandbox_id, token))


def delete(connection: sqlite3.Connection, tokens: Iterable[str]) -> None:
    """Remove the sandboxes and free their addresses."""
    connection.executemany("DELETE FROM network_sandboxes WHERE token = ?", [(token,) for token in tokens])


def add_member(connection: sqlite3.Connection, *, token: str, member: str) -> None:
    connection.execute("INSERT OR REPLACE INTO network_members VALUES (?, ?)", (member, token))


def remove_member(connection: sqlite3.Connection, member: str) -> None:
    connection.execute("DELETE FROM network_members WHERE member = ?", (member,))


def keep_members(connection: sqlite3.Connection, members: set[str]) -> None:
    """Remove every other one."""
    known = {member for (member,) in connection.execute("SELECT member FROM network_members")}
    for member in known - members:
        remove_member(connection, member)


def inhabited(connection: sqlite3.Connection) -> set[str]:
    """Tokens of the sandboxes that have a member."""
    return {token for (token,) in connection.execute("SELECT DISTINCT sandbox FROM network_members")}


def members(connection: sqlite3.Connection, token: str) -> list[str]:
    statement = "SELECT member FROM network_members WHERE sandbox = ? ORDER BY member"
    return [member for (member,) in connection.execute(statement, (token,))]


def add_endpoint(
    connection: sqlite3.Connection, record: SandboxRecord, *, token: str, spec: EndpointSpec, network: Network
) -> SandboxRecord:
    """The sandbox with an endpoint more, on the first free interface, its addresses leased. Raises ResourceExhausted,
    AlreadyExists for a fixed address that is leased, InvalidArgument for one that the network does not have."""
    endpoint = EndpointRecord(
        token=token,
        network_id=network.id,
        interface=_free_interface({one.interface for one in record.endpoints}),
        mac_address=checked_mac(spec.mac_address) or random_mac(),
        gateway_priority=spec.gateway_priority,
    )
    connection.execute(
        "INSERT INTO network_endpoints VALUES (?, ?, ?, ?, ?, '', '', ?)",
        (token, record.token, network.id, endpoint.interface, endpoint.mac_address, endpoint.gateway_priority),
    )
    endpoint = replace(
        endpoint,
        ipv4_address=_address(connection, network, network.ipv4, endpoint=token, wanted=spec.ipv4_address, version=4),
        ipv6_address=_address(connection, network, network.ipv6, endpoint=token, wanted=spec.ipv6_address, version=6),
    )
    connection.execute(
        "UPDATE network_endpoints SET ipv4_address = ?, ipv6_address = ? WHERE token = ?",
        (endpoint.ipv4_address, endpoint.ipv6_address, token),
    )
    endpoints = sorted((*record.endpoints, endpoint), key=_by_interface)
    return replace(record, endpoints=tuple(endpoints))


def delete_endpoint(connection: sqlite3.Connection, token: str) -> None:
    """Remove the endpoint and free its addresses."""
    connection.execute("DELETE FROM network_endpoints WHERE token = ?", (token,))


def _address(
    connection: sqlite3.Connection,
    network: Network,
    subnet: Subnet | None,
    *,
    endpoint: str,
    wanted: str,
    version: int,
) -> str:
    field = f"ipv{version}_address"
    if subnet is None:
        if wanted:
            raise _unfit(field, f"{wanted} cannot be had: network '{network.name}' has no IPv{version} addresses")
        return ""
    if wanted:
        return _lease_fixed(connection, network, subnet, endpoint=endpoint, wanted=wanted, field=field)
    return _lease_next(connection, network, subnet, endpoint=endpoint)


def _lease_fixed(
    connection: sqlite3.Connection, network: Network, subnet: Subnet, *, endpoint: str, wanted: str, field: str
) -> str:
    try:
        address = ip_address(wanted)
    except ValueError as error:
        raise _unfit(field, f"{wanted!a} is no IP address") from error
    if not subnet.pool.gives(address):
        raise _unfit(
            field,
            f"{wanted} is not for containers of network '{network.name}': give an address of {subnet.subnet} that is "
            f"neither its first nor last, nor the gateway {subnet.gateway}, nor reserved",
        )
    packed = address.packed
    held = (
        "SELECT sandbox_id FROM network_leases JOIN network_endpoints ON endpoint = network_endpoints.token "
        "JOIN network_sandboxes ON sandbox = network_sandboxes.token "
        "WHERE network_leases.network = ? AND address = ?"
    )
    row = connection.execute(held, (network.id, packed)).fetchone()
    if row is not None:
        holder = f"container '{row[0]}'" if row[0] is not None else "a sandbox that was prepared ahead"
        raise AlreadyExists(
            f"network '{network.name}': address {wanted} is in use by {holder}; choose another one, or end that",
            resource_type="address",
            resource_name=wanted,
            reason="ADDRESS_IN_USE",
            metadata={"network": network.name, "holder": row[0] or ""},
        )
    connection.execute("INSERT INTO network_leases VALUES (?, ?, ?)", (network.id, packed, endpoint))
    return str(address)


def _lease_next(connection: sqlite3.Connection, network: Network, subnet: Subnet, *, endpoint: str) -> str:
    pool, version = subnet.pool, subnet.subnet.version
    cursor = connection.execute(
        "SELECT address FROM network_cursors WHERE network = ? AND version = ?", (network.id, version)
    ).fetchone()

    def taken_from(low: int) -> Iterator[int]:
        statement = "SELECT address FROM network_leases WHERE network = ? AND address BETWEEN ? AND ? ORDER BY address"
        for (address,) in connection.execute(statement, (network.id, pool.pack(low), pool.pack(pool.last))):
            # Blobs compare byte by byte, so the other family's addresses fall in between.
            if len(address) == subnet.subnet.max_prefixlen // 8:
                yield int.from_bytes(address, "big")

    after = None if cursor is None else int.from_bytes(cursor[0], "big")
    free = next_free(pool, after=after, taken_from=taken_from)
    if free is None:
        raise ResourceExhausted(
            f"network '{network.name}': no address of {subnet.ip_range} is free, all {pool.capacity} are leased; "
            "remove containers that are no longer needed, or use a network with a larger subnet",
            reason="ADDRESSES_EXHAUSTED",
            metadata={"network": network.name, "subnet": str(subnet.subnet), "leased": str(pool.capacity)},
        )
    packed = pool.pack(free)
    connection.execute("INSERT INTO network_leases VALUES (?, ?, ?)", (network.id, packed, endpoint))
    connection.execute("INSERT OR REPLACE INTO network_cursors VALUES (?, ?, ?)", (network.id, version, packed))
    return str(ip_address(packed))


def _unfit(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field=field, description=description)])


def _free_interface(taken: set[str]) -> str:
    return next(name for name in map("eth{}".format, range(len(taken) + 1)) if name not in taken)


def _by_interface(endpoint: EndpointRecord) -> int:
    return int(endpoint.interface.removeprefix("eth"))


def _one(connection: sqlite3.Connection, statement: str, key: str) -> SandboxRecord | None:
    row = connection.execute(statement, (key,)).fetchone()
    return None if row is None else _record(connection, row)


def _record(connection: sqlite3.Connection, row: tuple[str, str | None, str]) -> SandboxRecord:
    token, sandbox_id, mode = row
    rows = connection.execute(
        "SELECT token, network, interface, mac_address, ipv4_address, ipv6_address, gateway_priority "
        "FROM network_endpoints WHERE sandbox = ?",
        (token,),
    )
    endpoints = [
        EndpointRecord(
            token=endpoint,
            network_id=network,
            interface=interface,
            mac_address=mac_address,
            ipv4_address=ipv4_address,
            ipv6_address=ipv6_address,
            gateway_priority=priority,
        )
        for endpoint, network, interface, mac_address, ipv4_address, ipv6_address, priority in rows
    ]
    return SandboxRecord(
        token=token,
        sandbox_id=sandbox_id,
        mode=NetworkMode(mode),
        endpoints=tuple(sorted(endpoints, key=_by_interface)),
    )
