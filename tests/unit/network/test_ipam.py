from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_service.network.ipam import AddressPool, free_subnet, next_free
from executor_service.network.network import SubnetSpec, resolve_subnet


def pool_of(subnet: IPv4Network | IPv6Network) -> AddressPool:
    return resolve_subnet(SubnetSpec(), subnet).pool


def first_of(pool: AddressPool) -> int:
    """What comes after the gateway."""
    return pool.first + 1


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
    pool = pool_of(network)
    given = [next_free(pool, after=after, taken_from=_taken([])) for after in (None, pool.last - 1)]
    assert [str(ip_address(pool.pack(address))) for address in given if address is not None] == [first, last]
    assert not pool.gives(ip_address(gateway))
    assert pool.gives(ip_address(first))
    assert pool.gives(ip_address(last))


def test_the_first_address_comes_first_and_a_freed_one_is_not_given_again_at_once() -> None:
    pool = pool_of(IPv4Network("10.0.0.0/29"))
    assert next_free(pool, after=None, taken_from=_taken([])) == first_of(pool)
    assert next_free(pool, after=first_of(pool), taken_from=_taken([])) == first_of(pool) + 1


def test_after_the_last_address_the_turn_begins_again_behind_the_taken_ones() -> None:
    pool = pool_of(IPv4Network("10.0.0.0/29"))
    taken = _taken([first_of(pool), pool.last])
    assert next_free(pool, after=pool.last - 1, taken_from=taken) == first_of(pool) + 1
    assert next_free(pool, after=pool.last, taken_from=taken) == first_of(pool) + 1


def test_a_cursor_from_another_subnet_is_ignored() -> None:
    pool = pool_of(IPv4Network("10.0.0.0/29"))
    assert next_free(pool, after=pool.last + 1000, taken_from=_taken([])) == first_of(pool)
    assert next_free(pool, after=1, taken_from=_taken([])) == first_of(pool)


def test_a_full_subnet_has_no_free_address() -> None:
    pool = pool_of(IPv6Network("fd00::/124"))
    assert next_free(pool, after=first_of(pool) + 3, taken_from=_taken(range(first_of(pool), pool.last + 1))) is None


def test_packed_addresses_sort_as_the_addresses_do() -> None:
    pool = pool_of(IPv4Network("9.0.0.0/8"))
    assert pool.pack(first_of(pool)) < pool.pack(first_of(pool) + 300) < pool.pack(pool.last)


@given(taken=st.sets(st.integers(2, 14)), after=st.none() | st.integers(0, 20))
def test_what_is_given_is_free_within_the_pool_and_the_nearest_after_the_cursor(
    taken: set[int], after: int | None
) -> None:
    pool = pool_of(IPv4Network("10.0.0.0/28"))
    base = int(pool.subnet.network_address)
    cursor = None if after is None else base + after
    found = next_free(pool, after=cursor, taken_from=_taken({base + offset for offset in taken}))
    start = 2 if after is None or not 2 <= after < 14 else after + 1
    turn = [*range(start, 15), *range(2, start)]
    expected = next((offset for offset in turn if offset not in taken), None)
    assert found == (None if expected is None else base + expected)


def test_a_range_and_reserved_addresses_bound_what_is_given_but_not_what_may_be_asked_for() -> None:
    subnet = resolve_subnet(
        SubnetSpec(ip_range=IPv4Network("10.0.0.8/30"), reserved=(ip_address("10.0.0.9"),)), IPv4Network("10.0.0.0/24")
    )
    given, after = [], None
    for _ in range(3):
        after = next_free(subnet.pool, after=after, taken_from=_taken([]))
        assert after is not None
        given.append(str(ip_address(subnet.pool.pack(after))))
    assert given == ["10.0.0.8", "10.0.0.10", "10.0.0.11"]
    assert subnet.pool.capacity == 3
    assert subnet.pool.gives(ip_address("10.0.0.77"))
    for no in ("10.0.0.0", "10.0.0.1", "10.0.0.9", "10.0.0.255", "10.0.1.1"):
        assert not subnet.pool.gives(ip_address(no)), no


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], "10.0.0.0/24"),
        (["10.0.0.0/24"], "10.0.1.0/24"),
        (["10.0.0.128/25", "10.0.1.7/32", "10.0.3.0/24", "fd00::/8"], "10.0.2.0/24"),
        (["10.0.0.0/23", "10.0.1.0/24", "10.0.2.0/24"], "10.0.3.0/24"),
        (["10.0.0.0/8"], None),
        (["10.0.0.0/23", "10.0.2.0/23"], None),
    ],
)
def test_the_lowest_subnet_that_nobody_uses(taken: list[str], free: str | None) -> None:
    found = free_subnet(IPv4Network("10.0.0.0/22"), prefix_length=24, taken=[ip_network(one) for one in taken])
    assert (str(found) if found is not None else None) == free
