from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_service.network.ipam import AddressPool, next_free


def _taken(addresses: Iterable[int]) -> Callable[[int], list[int]]:
    ordered = sorted(addresses)
    return lambda low: [address for address in ordered if address >= low]


@pytest.mark.parametrize(
    ("subnet", "gateway", "first", "last"),
    [
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254"),
        ("fd00::/64", "fd00::1", "fd00::2", "fd00::ffff:ffff:ffff:ffff"),
        ("fd00::/126", "fd00::1", "fd00::2", "fd00::3"),
    ],
)
def test_network_gateway_and_broadcast_are_never_given(subnet: str, gateway: str, first: str, last: str) -> None:
    network = ip_network(subnet)
    pool = AddressPool(network)
    assert str(pool.gateway) == gateway
    assert str(type(pool.gateway)(pool.first)) == first
    assert str(type(pool.gateway)(pool.last)) == last


def test_the_first_address_comes_first_and_a_freed_one_is_not_given_again_at_once() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"))
    assert next_free(pool, after=None, taken_from=_taken([])) == pool.first
    assert next_free(pool, after=pool.first, taken_from=_taken([])) == pool.first + 1


def test_after_the_last_address_the_turn_begins_again_behind_the_taken_ones() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"))
    taken = _taken([pool.first, pool.last])
    assert next_free(pool, after=pool.last - 1, taken_from=taken) == pool.first + 1
    assert next_free(pool, after=pool.last, taken_from=taken) == pool.first + 1


def test_a_cursor_from_another_subnet_is_ignored() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"))
    assert next_free(pool, after=pool.last + 1000, taken_from=_taken([])) == pool.first
    assert next_free(pool, after=1, taken_from=_taken([])) == pool.first


def test_a_full_subnet_has_no_free_address() -> None:
    pool = AddressPool(IPv6Network("fd00::/124"))
    assert next_free(pool, after=pool.first + 3, taken_from=_taken(range(pool.first, pool.last + 1))) is None


def test_packed_addresses_sort_as_the_addresses_do() -> None:
    pool = AddressPool(IPv4Network("9.0.0.0/8"))
    assert pool.pack(pool.first) < pool.pack(pool.first + 300) < pool.pack(pool.last)


@given(taken=st.sets(st.integers(2, 14)), after=st.none() | st.integers(0, 20))
def test_what_is_given_is_free_within_the_pool_and_the_nearest_after_the_cursor(
    taken: set[int], after: int | None
) -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/28"))
    base = int(pool.subnet.network_address)
    cursor = None if after is None else base + after
    found = next_free(pool, after=cursor, taken_from=_taken({base + offset for offset in taken}))
    start = 2 if after is None or not 2 <= after < 14 else after + 1
    turn = [*range(start, 15), *range(2, start)]
    expected = next((offset for offset in turn if offset not in taken), None)
    assert found == (None if expected is None else base + expected)
