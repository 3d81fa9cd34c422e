"""Addresses that were given back, on the rows alone: when who is given one again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from common.errors import ResourceExhausted
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.network import freed_addresses, records
from executor_service.network.network import Network, SubnetSpec, resolve_subnet

_LONG = 61  # seconds: more than an address rests


def _network(subnet: str = "10.0.0.0/29", *, ip_range: IPv4Network | None = None) -> Network:
    return Network(
        id="net",
        name="net",
        bridge="br0",
        ipv4=resolve_subnet(SubnetSpec(ip_range=ip_range), IPv4Network(subnet)),
        ipv6=resolve_subnet(SubnetSpec(), IPv6Network("fd00::/64")),
    )


class Rows:
    """Containers with an endpoint each; `pass_time` makes what was freed so many seconds older."""

    def __init__(self, network: Network) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.executescript(records.SCHEMA)
        self._network = network

    def attach(self, container: str | None, **wanted: Any) -> records.EndpointRecord:
        record = records.SandboxRecord(
            token=f"s-{container}-{self.count('network_sandboxes')}", sandbox_id=container, mode=NetworkMode.BRIDGE
        )
        records.insert(self.connection, record)
        spec = EndpointSpec(network_id=self._network.id, **wanted)
        (endpoint,) = records.add_endpoint(
            self.connection, record, token=f"e-{record.token}", spec=spec, network=self._network
        ).endpoints
        return endpoint

    def leave(self, container: str | None) -> None:
        found = self.connection.execute("SELECT token FROM network_sandboxes WHERE sandbox_id IS ?", (container,))
        records.delete(self.connection, [token for (token,) in found.fetchall()])

    def pass_time(self, seconds: int) -> None:
        self.connection.execute("UPDATE network_freed_addresses SET freed = freed - ?", (seconds * 1_000_000_000,))

    def count(self, table: str) -> int:
        (number,) = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(number)


@pytest.fixture
def rows() -> Iterator[Rows]:
    made = Rows(_network())
    yield made
    made.connection.close()


def test_a_freed_address_just_ahead_of_the_cursor_rests_for_a_minute(rows: Rows) -> None:
    rows.attach("a", ipv4_address="10.0.0.2", ipv6_address="fd00::2")
    rows.leave("a")
    given = rows.attach("b")
    assert (given.ipv4_address, given.ipv6_address) == ("10.0.0.3", "fd00::3")
    rows.leave("b")
    rows.attach("c", ipv4_address="10.0.0.4")
    rows.leave("c")
    rows.pass_time(_LONG)
    assert rows.attach("d").ipv4_address == "10.0.0.4"


def test_whose_it_was_has_it_again_with_its_hardware_address_at_once_and_later(rows: Rows) -> None:
    first = rows.attach("a")
    rows.leave("a")
    rows.attach("b")
    for wait in (0, _LONG):
        rows.pass_time(wait)
        again = rows.attach("a")
        assert (again.ipv4_address, again.ipv6_address, again.mac_address) == (
            first.ipv4_address,
            first.ipv6_address,
            first.mac_address,
        )
        rows.leave("a")
    assert rows.attach("a", mac_address="02:00:00:00:00:07").mac_address == "02:00:00:00:00:07"


def test_one_that_is_asked_for_is_given_and_then_kept_for_its_former_holder_no_more(rows: Rows) -> None:
    address = rows.attach("a").ipv4_address
    rows.leave("a")
    assert rows.attach("b", ipv4_address=address).ipv4_address == address
    assert rows.attach("a").ipv4_address != address


def test_resting_addresses_are_no_obstacle_when_nothing_else_is_free(rows: Rows) -> None:
    for name in "abcde":
        rows.attach(name)
    for name in "dbe":
        rows.leave(name)
        rows.pass_time(1)
    with pytest.raises(ResourceExhausted, match="is free, all 5 are leased"):
        rows.attach(None)  # one that is made ahead of time
    rows.leave(None)
    assert [rows.attach(name).ipv4_address for name in "xyz"] == ["10.0.0.5", "10.0.0.3", "10.0.0.6"]
    with pytest.raises(ResourceExhausted):
        rows.attach("one too many")


def test_what_was_prepared_and_never_used_does_not_rest(rows: Rows) -> None:
    rows.attach(None)
    rows.leave(None)
    assert rows.count("network_freed_addresses") == 0


def test_a_removed_containers_address_rests_and_is_nobodys(rows: Rows) -> None:
    address = rows.attach("a").ipv4_address
    rows.leave("a")
    freed_addresses.forget_container(rows.connection, "a")
    assert rows.attach("a").ipv4_address != address


def test_addresses_of_a_sandbox_that_outlives_its_container_wait_for_nobody(rows: Rows) -> None:
    address = rows.attach("a").ipv4_address
    freed_addresses.forget_container(rows.connection, "a")
    rows.leave("a")  # who shared it ends
    assert rows.attach("a").ipv4_address != address
    rows.pass_time(120)
    rows.attach("b")
    rows.leave("b")
    assert rows.count("network_freed_addresses") == 2  # one of each family, of b
    assert rows.count("network_ownerless_sandboxes") == 0


def test_a_clock_that_was_set_back_keeps_no_address(rows: Rows) -> None:
    rows.attach("a", ipv4_address="10.0.0.2")
    rows.leave("a")
    rows.pass_time(-3600)
    assert rows.attach("b").ipv4_address == "10.0.0.2"


def test_an_address_outside_the_range_is_given_only_when_it_is_asked_for() -> None:
    rows = Rows(_network("10.0.0.0/24", ip_range=IPv4Network("10.0.0.128/25")))
    rows.attach("a", ipv4_address="10.0.0.5")
    rows.leave("a")
    assert rows.attach("a").ipv4_address == "10.0.0.128"
    rows.connection.close()


def test_rows_do_not_pile_up(rows: Rows) -> None:
    for number in range(40):
        rows.attach(f"c{number}")
        rows.leave(f"c{number}")
        freed_addresses.disown(rows.connection, f"c{number}")
        rows.pass_time(_LONG)
    assert rows.count("network_freed_addresses") <= 4, "the last one's, of both families, and those of the one before"
    records.delete_network(rows.connection, "net")
    assert rows.count("network_freed_addresses") == 0
