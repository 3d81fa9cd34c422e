"""Networks, sandboxes, their endpoints and address leases as rows of the node's state database.

A row is committed before anything is made in the kernel, so whatever a crash leaves behind has a record. Whether a
sandbox was finished is not written down: its pin says so (see pins).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from pydantic import TypeAdapter

from executor_service.container import AS_THE_HOST, EndpointSpec, NameResolution, NetworkMode
from executor_service.network import freed_addresses
from executor_service.network.address_leases import leased_address
from executor_service.network.mac import checked_mac, random_mac
from executor_service.network.network import Network

SCHEMA = (
    freed_addresses.SCHEMA
    + """
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
CREATE TABLE IF NOT EXISTS network_resolutions (
    sandbox TEXT PRIMARY KEY REFERENCES network_sandboxes (token) ON DELETE CASCADE,
    resolution TEXT NOT NULL     -- JSON: what the one it was made for says of it, who may be gone before the others
) WITHOUT ROWID;
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
)

_NETWORK = TypeAdapter(Network)
_RESOLUTION = TypeAdapter(NameResolution)


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
    resolution: NameResolution = AS_THE_HOST


def networks(connection: sqlite3.Connection) -> list[Network]:
    rows = connection.execute("SELECT network FROM networks ORDER BY id")
    return [_NETWORK.validate_json(text) for (text,) in rows]


def insert_network(connection: sqlite3.Connection, network: Network) -> None:
    connection.execute("INSERT INTO networks VALUES (?, ?)", (network.id, _NETWORK.dump_json(network).decode()))


def update_network(connection: sqlite3.Connection, network: Network) -> None:
    statement = "UPDATE networks SET network = ? WHERE id = ?"
    connection.execute(statement, (_NETWORK.dump_json(network).decode(), network.id))


def delete_network(connection: sqlite3.Connection, network_id: str) -> None:
    connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))
    connection.execute("DELETE FROM network_cursors WHERE network = ?", (network_id,))
    freed_addresses.forget_network(connection, network_id)


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


def with_tokens(connection: sqlite3.Connection, tokens: Iterable[str]) -> list[SandboxRecord]:
    """Those of them that are on record."""
    statement = "SELECT token, sandbox_id, mode FROM network_sandboxes WHERE token = ?"
    return [record for token in tokens if (record := _one(connection, statement, token)) is not None]


def insert(connection: sqlite3.Connection, record: SandboxRecord) -> None:
    """Without its endpoints. Raises sqlite3.IntegrityError when the sandbox id has a record already."""
    connection.execute(
        "INSERT INTO network_sandboxes VALUES (?, ?, ?)", (record.token, record.sandbox_id, record.mode.value)
    )


def give(connection: sqlite3.Connection, *, token: str, sandbox_id: str) -> None:
    """Make a prepared sandbox somebody's."""
    connection.execute("UPDATE network_sandboxes SET sandbox_id = ? WHERE token = ?", (sandbox_id, token))


def set_resolution(connection: sqlite3.Connection, *, token: str, resolution: NameResolution) -> None:
    """Nothing asked for is nothing written."""
    if resolution != AS_THE_HOST:
        text = _RESOLUTION.dump_json(resolution).decode()
        connection.execute("INSERT OR REPLACE INTO network_resolutions VALUES (?, ?)", (token, text))


def delete(connection: sqlite3.Connection, tokens: Iterable[str]) -> None:
    """Remove the sandboxes and free their addresses."""
    for token in tokens:
        endpoints = connection.execute("SELECT token FROM network_endpoints WHERE sandbox = ?", (token,)).fetchall()
        for (endpoint,) in endpoints:
            freed_addresses.free(connection, endpoint)
        connection.execute("DELETE FROM network_sandboxes WHERE token = ?", (token,))


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
    """The sandbox with an endpoint more, on the first free interface, its addresses leased: those that its container
    had there last, as far as they are free. Raises ResourceExhausted, AlreadyExists for a fixed address that is leased,
    InvalidArgument for one that the network does not have."""
    container = record.sandbox_id
    own_mac = freed_addresses.own_mac(connection, network.id, container) if container is not None else ""
    endpoint = EndpointRecord(
        token=token,
        network_id=network.id,
        interface=_free_interface({one.interface for one in record.endpoints}),
        mac_address=checked_mac(spec.mac_address) or own_mac or random_mac(),
        gateway_priority=spec.gateway_priority,
    )
    connection.execute(
        "INSERT INTO network_endpoints VALUES (?, ?, ?, ?, ?, '', '', ?)",
        (token, record.token, network.id, endpoint.interface, endpoint.mac_address, endpoint.gateway_priority),
    )
    lease = partial(leased_address, connection, network, endpoint=token, container=container)
    endpoint = replace(
        endpoint,
        ipv4_address=lease(network.ipv4, wanted=spec.ipv4_address, version=4),
        ipv6_address=lease(network.ipv6, wanted=spec.ipv6_address, version=6),
    )
    connection.execute(
        "UPDATE network_endpoints SET ipv4_address = ?, ipv6_address = ? WHERE token = ?",
        (endpoint.ipv4_address, endpoint.ipv6_address, token),
    )
    endpoints = sorted((*record.endpoints, endpoint), key=_by_interface)
    return replace(record, endpoints=tuple(endpoints))


def delete_endpoint(connection: sqlite3.Connection, token: str) -> None:
    """Remove the endpoint and free its addresses."""
    freed_addresses.free(connection, token)
    connection.execute("DELETE FROM network_endpoints WHERE token = ?", (token,))


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
        resolution=_resolution(connection, token),
    )


def _resolution(connection: sqlite3.Connection, token: str) -> NameResolution:
    row = connection.execute("SELECT resolution FROM network_resolutions WHERE sandbox = ?", (token,)).fetchone()
    return AS_THE_HOST if row is None else _RESOLUTION.validate_json(row[0])
