"""How an overlay network is cut: every node a slice of its own, whatever comes and goes."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_service.overlays.slices import free_part, on_node, slice_prefix, with_made, with_slice, without_slice
from api_service.records.network import NetworkRecord, Overlay, Subnet
from common.errors import FailedPrecondition, ResourceExhausted


def network(ipv4: str = "10.9.0.0/20", ipv6: str = "fd00:9::/60") -> NetworkRecord:
    return NetworkRecord(
        id="ab" * 32,
        name="wide",
        created_at=0,
        node="",
        driver="overlay",
        ipv4=Subnet(subnet=ipv4, aux_addresses={"x": "10.9.1.7"}) if ipv4 else None,
        ipv6=Subnet(subnet=ipv6) if ipv6 else None,
        overlay=Overlay(
            vni=4096,
            port=4789,
            slice_prefix_ipv4=slice_prefix(ip_network(ipv4)) if ipv4 else 0,
            slice_prefix_ipv6=slice_prefix(ip_network(ipv6)) if ipv6 else 0,
        ),
    )


def parts(record: NetworkRecord) -> list[str]:
    assert record.overlay is not None
    return [part for one in record.overlay.slices.values() for part in (one.ipv4, one.ipv6) if part]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_slices_never_overlap_and_every_change_is_a_version(steps: list[tuple[bool, int]]) -> None:
    record = network()
    for comes, number in steps:
        assert record.overlay is not None
        before, had = record.overlay, f"node{number}" in record.overlay.slices
        if comes and not had and len(before.slices) == 16:
            with pytest.raises(ResourceExhausted, match="has no slice left: 16 nodes have one"):
                with_slice(record, node=f"node{number}", address=f"10.90.0.{number}")
            continue
        change = with_slice if comes else without_slice
        more = {"address": f"10.90.0.{number}"} if comes else {}
        record = change(record, node=f"node{number}", **more)
        assert record.overlay is not None
        assert record.overlay.version == before.version + (comes != had)
        cut = [ip_network(part) for part in parts(record)]
        assert len(set(cut)) == len(cut) == 2 * len(record.overlay.slices)
        assert all(
            part.subnet_of(IPv4Network("10.9.0.0/20") if part.version == 4 else IPv6Network("fd00:9::/60"))  # type: ignore[arg-type]  # one family
            for part in cut
        )


def test_a_node_keeps_its_slice_when_its_address_changes() -> None:
    record = with_made(with_slice(network(), node="a", address="10.90.0.1"), node="a")
    moved = with_slice(record, node="a", address="10.90.0.9")
    assert moved.overlay is not None
    assert moved.overlay.slices["a"].address == "10.90.0.9"
    assert moved.overlay.slices["a"].made
    assert parts(moved) == parts(record)
    assert with_slice(moved, node="a", address="10.90.0.9") is moved
    with pytest.raises(FailedPrecondition, match="node 'b' is reached at fd00::2 and node 'a' at 10"):
        with_slice(moved, node="b", address="fd00::2")


def test_a_node_is_asked_for_its_own_part_and_told_of_the_others() -> None:
    record = network()
    for number, name in enumerate(("a", "b", "c"), 1):
        record = with_slice(record, node=name, address=f"10.90.0.{number}")
    asked = on_node(record, "b")
    assert asked.ipv4 is not None
    assert (asked.ipv4.subnet, asked.ipv4.gateway, dict(asked.ipv4.aux_addresses)) == (
        "10.9.1.0/24",
        "",
        {"x": "10.9.1.7"},
    )
    assert asked.overlay is not None
    assert (asked.overlay.ipv4, asked.overlay.ipv6) == ("10.9.0.0/20", "fd00:9::/60")
    assert [(peer.address, peer.ipv4) for peer in asked.overlay.underlay.peers] == [
        ("10.90.0.1", "10.9.0.0/24"),
        ("10.90.0.3", "10.9.2.0/24"),
    ]
    other = on_node(record, "a")
    assert other.ipv4 is not None
    assert dict(other.ipv4.aux_addresses) == {}


def test_one_family_is_enough() -> None:
    only4, only6 = network(ipv6=""), network(ipv4="")
    assert parts(with_slice(only4, node="a", address="10.90.0.1")) == ["10.9.0.0/24"]
    assert parts(with_slice(only6, node="a", address="10.90.0.1")) == ["fd00:9::/64"]


@pytest.mark.parametrize(
    ("subnet", "prefix"),
    [
        ("10.0.0.0/8", 24),
        ("10.9.0.0/20", 24),
        ("10.9.0.0/24", 28),
        ("10.9.0.0/28", 30),
        ("fd00::/48", 64),
        ("fd00::/64", 68),
    ],
)
def test_slices_are_of_the_usual_size_or_a_sixteenth(subnet: str, prefix: int) -> None:
    assert slice_prefix(ip_network(subnet)) == prefix


def test_parts_of_a_pool_leave_out_what_is_taken() -> None:
    pool = IPv4Network("10.64.0.0/16")
    taken: list[IPv4Network | IPv6Network] = [
        IPv4Network("10.64.0.0/18"),
        IPv4Network("10.64.100.0/24"),
        IPv6Network("fd00::/48"),
    ]
    assert free_part(pool, taken) == IPv4Network("10.64.128.0/18")
    with pytest.raises(ResourceExhausted, match=r"no /18 of 10\.64\.0\.0/16 is free"):
        free_part(pool, [pool])


def test_what_a_node_says_of_itself_keeps_no_other_from_the_network() -> None:
    record = with_slice(network(), node="n1", address="10.90.0.1")
    for address, why in (("nowhere", "is no IP address"), ("10.90.0.1", "an overlay_address of its own")):
        with pytest.raises(FailedPrecondition, match=why) as caught:
            with_slice(record, node="n2", address=address)
        assert caught.value.reason == "UNDERLAY_UNAVAILABLE"
