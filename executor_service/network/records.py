"""Sandboxes and their address leases as rows of the node's state database.

A row is committed before anything is made in the kernel, so whatever a crash leaves behind has a record. Whether the
sandbox was finished is not written down: its pin says so (see pins).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address

from common.errors import ResourceExhausted
from executor_service.container import NetworkMode
from executor_service.network.ipam import AddressPool, next_free

SCHEMA = """
CREATE TABLE IF NOT EXISTS network_sandboxes (
    token TEXT PRIMARY KEY,      -- names the pin and the veth; never used twice
    sandbox_id TEXT UNIQUE,      -- NULL while nobody has asked for it: a prepared one
    mode TEXT NOT NULL,
    mac_address TEXT NOT NULL,   -- empty without an endpoint, as the next two
    ipv4_address TEXT NOT NULL,
    ipv6_address TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS network_leases (
    network TEXT NOT NULL,
    address BLOB NOT NULL,       -- 4 or 16 bytes, big-endian
    token TEXT NOT NULL REFERENCES network_sandboxes (token) ON DELETE CASCADE,
    PRIMARY KEY (network, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS network_leases_by_token ON network_leases (token);
CREATE TABLE IF NOT EXISTS network_cursors (
    network TEXT NOT NULL,
    version INTEGER NOT NULL,    -- of IP: 4 or 6
    address BLOB NOT NULL,       -- the last one given
    PRIMARY KEY (network, version)
) WITHOUT ROWID;
"""

_COLUMNS = "token, sandbox_id, mode, mac_address, ipv4_address, ipv6_address"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRecord:
    """A row. `sandbox_id` None: prepared ahead of time, nobody's yet. The last three are empty without an endpoint."""

    token: str
    sandbox_id: str | None
    mode: NetworkMode
    mac_address: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""


def find(connection: sqlite3.Connection, sandbox_id: str) -> SandboxRecord | None:
    statement = f"SELECT {_COLUMNS} FROM network_sandboxes WHERE sandbox_id = ?"  # noqa: S608  constant columns
    row = connection.execute(statement, (sandbox_id,)).fetchone()
    return None if row is None else _record(row)


def everything(connection: sqlite3.Connection) -> list[SandboxRecord]:
    statement = f"SELECT {_COLUMNS} FROM network_sandboxes ORDER BY sandbox_id"  # noqa: S608  constant columns
    return [_record(row) for row in connection.execute(statement)]


def insert(connection: sqlite3.Connection, record: SandboxRecord) -> None:
    """Raises sqlite3.IntegrityError when the sandbox id has a record already."""
    connection.execute(
        f"INSERT INTO network_sandboxes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608  constant columns
        (
            record.token,
            record.sandbox_id,
            record.mode.value,
            record.mac_address,
            record.ipv4_address,
            record.ipv6_address,
        ),
    )


def give(connection: sqlite3.Connection, *, token: str, sandbox_id: str) -> None:
    """Make a prepared sandbox somebody's."""
    connection.execute("UPDATE network_sandboxes SET sandbox_id = ? WHERE token = ?", (sandbox_id, token))


def delete(connection: sqlite3.Connection, tokens: set[str]) -> None:
    """Remove the sandboxes and free their addresses."""
    connection.executemany("DELETE FROM network_sandboxes WHERE token = ?", [(token,) for token in tokens])


def insert_with_addresses(
    connection: sqlite3.Connection, record: SandboxRecord, *, network: str, subnets: tuple[IPv4Network, IPv6Network]
) -> SandboxRecord:
    """Insert the record with an address leased from each subnet, and return it so. Raises ResourceExhausted."""
    insert(connection, record)
    ipv4_address, ipv6_address = (
        lease(connection, network=network, subnet=subnet, token=record.token) for subnet in subnets
    )
    connection.execute(
        "UPDATE network_sandboxes SET ipv4_address = ?, ipv6_address = ? WHERE token = ?",
        (ipv4_address, ipv6_address, record.token),
    )
    return replace(record, ipv4_address=ipv4_address, ipv6_address=ipv6_address)


def lease(connection: sqlite3.Connection, *, network: str, subnet: IPv4Network | IPv6Network, token: str) -> str:
    """Lease the next address of the subnet to the sandbox, whose row must exist. Raises ResourceExhausted."""
    pool = AddressPool(subnet)
    cursor = connection.execute(
        "SELECT address FROM network_cursors WHERE network = ? AND version = ?", (network, subnet.version)
    ).fetchone()

    def taken_from(low: int) -> Iterator[int]:
        statement = "SELECT address FROM network_leases WHERE network = ? AND address BETWEEN ? AND ? ORDER BY address"
        for (address,) in connection.execute(statement, (network, pool.pack(low), pool.pack(pool.last))):
            # Blobs compare byte by byte, so the other family's addresses fall in between.
            if len(address) == subnet.max_prefixlen // 8:
                yield int.from_bytes(address, "big")

    after = None if cursor is None else int.from_bytes(cursor[0], "big")
    free = next_free(pool, after=after, taken_from=taken_from)
    if free is None:
        raise ResourceExhausted(
            f"network '{network}': no address of {subnet} is free, all {pool.capacity} are leased; "
            "remove containers that are no longer needed, or configure a larger subnet",
            reason="ADDRESSES_EXHAUSTED",
            metadata={"network": network, "subnet": str(subnet), "leased": str(pool.capacity)},
        )
    packed = pool.pack(free)
    connection.execute("INSERT INTO network_leases VALUES (?, ?, ?)", (network, packed, token))
    connection.execute("INSERT OR REPLACE INTO network_cursors VALUES (?, ?, ?)", (network, subnet.version, packed))
    return str(ip_address(packed))


def _record(row: tuple[str, str | None, str, str, str, str]) -> SandboxRecord:
    token, sandbox_id, mode, mac_address, ipv4_address, ipv6_address = row
    return SandboxRecord(
        token=token,
        sandbox_id=sandbox_id,
        mode=NetworkMode(mode),
        mac_address=mac_address,
        ipv4_address=ipv4_address,
        ipv6_address=ipv6_address,
    )
