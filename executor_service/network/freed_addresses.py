"""Addresses that were given back: the rows of `network_freed_addresses`, on the database's thread.

For a while nobody else is given one, for it may still be in somebody's caches (moby/libnetwork#1945). Whose it was has
it again at once, its hardware address too, and later as long as nobody else was given it: that is how a container that
restarts, or is stopped and started, keeps its addresses.
"""

from __future__ import annotations

import sqlite3
import time

from executor_service.network.ipam import AddressPool

SCHEMA = """
CREATE TABLE IF NOT EXISTS network_freed_addresses (
    network TEXT NOT NULL,
    address BLOB NOT NULL,       -- 4 or 16 bytes, big-endian; never one that is leased
    container TEXT NOT NULL,     -- whose it was; empty when that is removed, or was given another one since
    mac_address TEXT NOT NULL,   -- of the interface that had it
    freed INTEGER NOT NULL,      -- nanoseconds since the epoch
    PRIMARY KEY (network, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS network_freed_addresses_by_container ON network_freed_addresses (container, network);
-- Sandboxes that others still share, while the container that they were made for is removed.
CREATE TABLE IF NOT EXISTS network_ownerless_sandboxes (
    sandbox TEXT PRIMARY KEY REFERENCES network_sandboxes (token) ON DELETE CASCADE
) WITHOUT ROWID;
"""

_QUARANTINE = 60 * 1_000_000_000  # nanoseconds: longer than neighbours (arp(7)) and most resolvers remember an address


def free(connection: sqlite3.Connection, endpoint: str) -> None:
    """Before the endpoint with this token, or its sandbox, is deleted. What was prepared ahead was never used, and is
    free at once."""
    whose = connection.execute(
        "SELECT sandbox_id, network, mac_address, network_sandboxes.token IN network_ownerless_sandboxes "
        "FROM network_endpoints JOIN network_sandboxes ON sandbox = network_sandboxes.token "
        "WHERE network_endpoints.token = ? AND sandbox_id IS NOT NULL",
        (endpoint,),
    ).fetchone()
    if whose is None:
        return
    container, network, mac_address, ownerless = whose
    disown(connection, container, network=network)
    connection.execute(
        "INSERT OR REPLACE INTO network_freed_addresses "
        "SELECT network, address, ?, ?, ? FROM network_leases WHERE endpoint = ?",
        ("" if ownerless else container, mac_address, time.time_ns(), endpoint),
    )
    connection.execute(
        "DELETE FROM network_freed_addresses WHERE container = '' AND freed NOT BETWEEN ? AND ?", quarantine()
    )


def disown(connection: sqlite3.Connection, container: str, *, network: str | None = None) -> None:
    """The container's on that network, on all without one, are kept for it no longer; the quarantine goes on."""
    connection.execute(
        "UPDATE network_freed_addresses SET container = '' WHERE container = ? AND network = coalesce(?, network)",
        (container, network),
    )


def forget_container(connection: sqlite3.Connection, container: str) -> None:
    """It is removed: none is kept for it, neither of those it gave back nor of those that who shares its sandbox will.
    Idempotent."""
    disown(connection, container)
    connection.execute(
        "INSERT OR IGNORE INTO network_ownerless_sandboxes SELECT token FROM network_sandboxes WHERE sandbox_id = ?",
        (container,),
    )


def owned_again(connection: sqlite3.Connection, sandbox: str) -> None:
    """The sandbox with this token, by a container of the same id as the one that was removed."""
    connection.execute("DELETE FROM network_ownerless_sandboxes WHERE sandbox = ?", (sandbox,))


def forget_network(connection: sqlite3.Connection, network: str) -> None:
    connection.execute("DELETE FROM network_freed_addresses WHERE network = ?", (network,))


def take(connection: sqlite3.Connection, network: str, address: bytes) -> None:
    """Before it is leased, to whomever. Idempotent."""
    connection.execute("DELETE FROM network_freed_addresses WHERE network = ? AND address = ?", (network, address))


def own(connection: sqlite3.Connection, network: str, container: str) -> list[bytes]:
    """The addresses that the container had there last, as far as nobody else was given them."""
    rows = connection.execute(
        "SELECT address FROM network_freed_addresses WHERE container = ? AND network = ?", (container, network)
    )
    return [address for (address,) in rows]


def own_mac(connection: sqlite3.Connection, network: str, container: str) -> str:
    """The hardware address that it had there last; empty without one."""
    row = connection.execute(
        "SELECT mac_address FROM network_freed_addresses WHERE container = ? AND network = ?", (container, network)
    ).fetchone()
    return "" if row is None else str(row[0])


def quarantine() -> tuple[int, int]:
    """What was freed between these moments is not given to others. A clock that was set back leaves rows of the future:
    they are not meant, or they would stay for long."""
    now = time.time_ns()
    return now - _QUARANTINE, now


def longest_free(connection: sqlite3.Connection, network: str, pool: AddressPool) -> int | None:
    """Of those that the pool gives, whoever they were."""
    rows = connection.execute(
        "SELECT address FROM network_freed_addresses WHERE network = ? AND address BETWEEN ? AND ? ORDER BY freed",
        (network, pool.pack(pool.first), pool.pack(pool.last)),
    )
    return next((int.from_bytes(address, "big") for (address,) in rows if len(address) == pool.size), None)
