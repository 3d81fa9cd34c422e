"""Addresses of networks, leased to endpoints: the rows of `network_leases` and `network_cursors`.

On the database's thread, in a transaction of whoever adds the endpoint; a lease goes with its endpoint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address

from common.errors import AlreadyExists, InvalidArgument, ResourceExhausted, Violation
from executor_service.network import freed_addresses
from executor_service.network.ipam import AddressPool, next_free
from executor_service.network.network import Network, Subnet


def leased_address(
    connection: sqlite3.Connection,
    network: Network,
    subnet: Subnet | None,
    *,
    endpoint: str,
    container: str | None,
    wanted: str,
    version: int,
) -> str:
    """The endpoint's address of one family from now on, empty when the network has no `subnet` of it: the `wanted` one,
    the one that its container had last, or the next. Without a `container`, none that was just freed. Raises
    ResourceExhausted, AlreadyExists for a `wanted` address that is leased, InvalidArgument for one that the network
    does not have."""
    field = f"ipv{version}_address"
    if subnet is None:
        if wanted:
            raise _unfit(field, f"{wanted} cannot be had: network '{network.name}' has no IPv{version} addresses")
        return ""
    if wanted:
        return _lease_fixed(connection, network, subnet, endpoint=endpoint, wanted=wanted, field=field)
    own = freed_addresses.own(connection, network.id, container) if container is not None else ()
    for packed in own:
        # One outside the range was asked for once, and is not now.
        if len(packed) == subnet.pool.size and subnet.pool.first <= int.from_bytes(packed, "big") <= subnet.pool.last:
            return _lease(connection, network, packed, endpoint)
    return _lease_next(connection, network, subnet, endpoint=endpoint, spared=container is None)


def _lease(connection: sqlite3.Connection, network: Network, packed: bytes, endpoint: str) -> str:
    freed_addresses.take(connection, network.id, packed)
    connection.execute("INSERT INTO network_leases VALUES (?, ?, ?)", (network.id, packed, endpoint))
    return str(ip_address(packed))


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
    return _lease(connection, network, packed, endpoint)


def _lease_next(
    connection: sqlite3.Connection, network: Network, subnet: Subnet, *, endpoint: str, spared: bool
) -> str:
    """`spared`: what was just freed stays so even when nothing else is free."""
    pool, version = subnet.pool, subnet.subnet.version
    cursor = connection.execute(
        "SELECT address FROM network_cursors WHERE network = ? AND version = ?", (network.id, version)
    ).fetchone()
    after = None if cursor is None else int.from_bytes(cursor[0], "big")
    free = next_free(pool, after=after, taken_from=partial(_not_to_be_given, connection, network, pool))
    if free is None and not spared:
        free = freed_addresses.longest_free(connection, network.id, pool)
    if free is None:
        raise ResourceExhausted(
            f"network '{network.name}': no address of {subnet.ip_range} is free, all {pool.capacity} are leased; "
            "remove containers that are no longer needed, or use a network with a larger subnet",
            reason="ADDRESSES_EXHAUSTED",
            metadata={"network": network.name, "subnet": str(subnet.subnet), "leased": str(pool.capacity)},
        )
    packed = pool.pack(free)
    connection.execute("INSERT OR REPLACE INTO network_cursors VALUES (?, ?, ?)", (network.id, version, packed))
    return _lease(connection, network, packed, endpoint)


def _not_to_be_given(connection: sqlite3.Connection, network: Network, pool: AddressPool, low: int) -> Iterator[int]:
    """What is leased, or was a moment ago, from `low` on, in order."""
    statement = (
        "SELECT address FROM network_leases WHERE network = :network AND address BETWEEN :low AND :last "
        "UNION ALL "
        "SELECT address FROM network_freed_addresses WHERE network = :network AND address BETWEEN :low AND :last "
        "AND freed BETWEEN :since AND :now ORDER BY address"
    )
    since, now = freed_addresses.quarantine()
    bounds = {"network": network.id, "low": pool.pack(low), "last": pool.pack(pool.last), "since": since, "now": now}
    for (address,) in connection.execute(statement, bounds):
        # Blobs compare byte by byte, so the other family's addresses fall in between.
        if len(address) == pool.size:
            yield int.from_bytes(address, "big")


def _unfit(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field=field, description=description)])
