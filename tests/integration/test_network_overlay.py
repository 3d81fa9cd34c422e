"""Networks that span nodes: who talks to whom across them, while nodes come and go, and what is refused.

Nodes are network namespaces on one underlay, each with the executor's own network in it.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from common.errors import FailedPrecondition
from executor_service.network import overlay_driver
from executor_service.network.network import SubnetSpec
from tests.fixtures.netns import open_namespace
from tests.fixtures.overlay_nodes import (
    PORT,
    OverlayNode,
    overlay_nodes,
    overlay_spec,
    peer_of,
    slices,
    underlay,
    vni_of,
)
from tests.fixtures.overlay_traffic import OTHER, QUIET, SPAN, addresses, reaches, spanned


@pytest.mark.parametrize("ipv6", [False, True], ids=["over IPv4", "over IPv6"])
async def test_containers_of_two_nodes_talk_with_their_own_addresses_and_full_packets(
    nodes: list[OverlayNode], ipv6: bool
) -> None:
    first, second = nodes
    await spanned(nodes, ipv6=ipv6)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    assert addresses(one) == ("10.121.1.2", "fd00:121:0:1::2")
    for here, there in ((one, two), (two, one)):
        for own, address in zip(addresses(here), addresses(there), strict=True):
            assert reaches(here, there, address) == own
    # The nodes themselves reach every container, as the gateways.
    assert reaches(first.namespace, two, addresses(two)[0]) == "10.121.1.1"
    assert reaches(first.namespace, two, addresses(two)[1]) == "fd00:121:0:1::1"
    mtu = 1430 if ipv6 else 1450
    with open_namespace(one.netns_path) as inside:
        assert f"mtu {mtu} " in inside.command("ip", "link", "show", "eth0")
        assert "10.121.0.0/16 via 10.121.1.1 dev eth0" in inside.command("ip", "route")
        assert "fd00:121::/48 via fd00:121:0:1::1 dev eth0" in inside.command("ip", "-6", "route")
        for header, address in zip((28, 48), addresses(two), strict=True):
            inside.command("busybox", "ping", "-c1", "-W5", "-s", str(mtu - header), address)
        # A part of the network that no node has is refused at once, not sent to the world.
        with inside.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, pytest.raises(OSError, match="unreachable"):
            probe.connect(("10.121.77.2", 80))


async def test_a_join_is_one_message_however_many_containers_there_are(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await first.create(overlay_spec(first, SPAN))
    there = [await first.sandbox(f"c{number}", SPAN) for number in range(5)]
    await second.create(overlay_spec(second, SPAN, first))
    late = await second.sandbox("late", SPAN)
    assert not reaches(late, there[0], addresses(there[0])[0], timeout=QUIET)
    await first.set_peers(SPAN, second, version=2)
    for container in there:
        for address in addresses(container):
            assert reaches(late, container, address)
    tunnel = f"vx-{SPAN[:12]}"
    assert len(first.namespace.command("ip", "route", "show", "dev", tunnel).splitlines()) == 1
    assert len(first.namespace.command("bridge", "fdb", "show", "dev", tunnel).splitlines()) == 1


async def test_peers_come_and_go_while_others_talk(tmp_path: Path) -> None:
    async with overlay_nodes(tmp_path, 3) as nodes:
        first, second, third = nodes
        await spanned(nodes)
        one, two, three = [await node.sandbox(f"on{node.number}", SPAN) for node in nodes]
        with open_namespace(one.netns_path) as here, open_namespace(two.netns_path) as there:
            address = addresses(two)[0]
            with (
                there.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
                here.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
            ):
                listening.bind((address, 9000))
                asking.connect((address, 9000))
                for version in range(2, 22):
                    peers = (second,) if version % 2 == 0 else (second, third)
                    change = asyncio.ensure_future(first.set_peers(SPAN, *peers, version=version))
                    for _ in range(20):
                        asking.send(b"on")
                        assert listening.recv(16) == b"on"
                        await asyncio.sleep(0)
                    await change
                    heard = bool(reaches(one, three, addresses(three)[0], timeout=QUIET if version % 2 == 0 else 30))
                    assert heard == (version % 2 == 1)
        # What is older than what is there changes nothing, in whatever order messages come.
        await first.set_peers(SPAN, version=3)
        assert reaches(one, three, addresses(three)[1])
        await first.set_peers(SPAN, third, version=22)
        assert not reaches(one, two, addresses(two)[0], timeout=QUIET)
        # Nor is the one that is no peer any more heard.
        assert not reaches(two, one, addresses(one)[0], timeout=QUIET)


async def test_who_comes_and_goes_is_all_that_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be a thousand others."""
    async with overlay_nodes(tmp_path, 3) as nodes:
        first, second, third = nodes
        await first.create(overlay_spec(first, SPAN, second))
        await second.create(overlay_spec(second, SPAN, first))
        await third.create(overlay_spec(third, SPAN, first))
        one, two, three = [await node.sandbox(f"on{node.number}", SPAN) for node in nodes]

        def looks(*arguments: object, **more: object) -> None:
            raise OSError(5, "all of it is looked at")

        monkeypatch.setattr(overlay_driver, "ensure_tunnel", looks)
        await first.set_peers(SPAN, second, third, version=2)
        for there in (two, three):
            for address in addresses(there):
                assert reaches(one, there, address)
        await first.set_peers(SPAN, third, version=3)
        assert reaches(one, three, addresses(three)[0])
        assert not reaches(one, two, addresses(two)[0], timeout=QUIET)
        with pytest.raises(FailedPrecondition, match="all of it is looked at"):
            await first.set_peers(SPAN, third, version=3)


async def test_what_somebody_deleted_is_made_again_by_the_next_change_that_meets_it(tmp_path: Path) -> None:
    async with overlay_nodes(tmp_path, 3) as nodes:
        first, second, third = nodes
        await first.create(overlay_spec(first, SPAN, second, third))
        await second.create(overlay_spec(second, SPAN, first))
        one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
        tunnel = f"vx-{SPAN[:12]}"
        first.namespace.command("ip", "route", "flush", "dev", tunnel)
        assert not reaches(one, two, addresses(two)[0], timeout=QUIET)
        await first.set_peers(SPAN, second, version=2)
        assert reaches(one, two, addresses(two)[0])
        first.namespace.command("ip", "route", "flush", "dev", tunnel)
        await first.set_peers(SPAN, second, version=2)
        assert reaches(one, two, addresses(two)[0])


async def test_a_slice_that_changes_hands_leads_to_its_new_node(tmp_path: Path) -> None:
    async with overlay_nodes(tmp_path, 3) as nodes:
        first, second, third = nodes
        await first.create(overlay_spec(first, SPAN, second))
        heir = overlay_spec(third, SPAN, first)
        own4, own6 = slices(second.number, vni_of(SPAN))
        await third.create(replace(heir, ipv4=SubnetSpec(subnet=own4), ipv6=SubnetSpec(subnet=own6)))
        changed = replace(peer_of(third, vni_of(SPAN)), ipv4=own4, ipv6=own6)
        newer = replace(underlay(first, version=2, vni=SPAN), peers=(changed,))
        await first.do(first.network.networks.set_underlay(SPAN, newer))
        one, three = await first.sandbox("one", SPAN), await third.sandbox("three", SPAN)
        for address in addresses(three):
            assert reaches(one, three, address)


async def test_what_an_underlay_cannot_carry_is_refused_with_the_way_out(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    asked = overlay_spec(first, SPAN)
    assert asked.underlay is not None
    elsewhere = replace(asked, underlay=replace(asked.underlay, local=IPv4Address("10.90.0.77")))
    with pytest.raises(FailedPrecondition, match=r"no interface of this node has the underlay address 10\.90\.0\.77"):
        await first.create(elsewhere)
    with pytest.raises(
        FailedPrecondition, match="eth0 has an MTU of 1500 bytes, which leaves 1450, and 1451 are needed"
    ):
        await first.create(replace(asked, mtu=1451))
    assert first.network.networks.find(SPAN) is None
    first.namespace.command(
        *("ip", "link", "add", "theirs", "type", "vxlan", "id", str(vni_of(SPAN)), "dstport", str(PORT)),
        *("local", "10.90.0.1"),
    )
    with pytest.raises(FailedPrecondition, match="VNI 4097 at UDP port 4789 is in use by another interface"):
        await first.create(asked)
    first.namespace.command("ip", "link", "delete", "theirs")
    await first.create(replace(asked, mtu=1400))
    assert "mtu 1400 " in first.namespace.command("ip", "link", "show", f"vx-{SPAN[:12]}")
    taken = replace(overlay_spec(first, OTHER), ipv4=SubnetSpec(subnet=IPv4Network("10.121.9.0/24")))
    assert taken.overlay is not None
    with pytest.raises(FailedPrecondition, match=r"subnet 10\.121\.0\.0/16 overlaps 10\.121\.0\.0/16 of network"):
        await first.create(replace(taken, overlay=replace(taken.overlay, ipv4=IPv4Network("10.121.0.0/16"))))
    with pytest.raises(FailedPrecondition, match="there is no overlay network"):
        await second.set_peers(OTHER, first, version=1)


async def test_an_address_that_moved_is_taken_by_the_interface(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    first.namespace.command("ip", "address", "add", "10.90.0.61/24", "dev", "eth0")
    moved = replace(underlay(first, second, version=2, vni=SPAN), local=IPv4Address("10.90.0.61"))
    await first.do(first.network.networks.set_underlay(SPAN, moved))
    assert not reaches(two, one, addresses(one)[0], timeout=QUIET)
    known = replace(peer_of(first, vni_of(SPAN)), address=IPv4Address("10.90.0.61"))
    told = replace(underlay(second, version=2, vni=SPAN), peers=(known,))
    await second.do(second.network.networks.set_underlay(SPAN, told))
    for address in addresses(one):
        assert reaches(two, one, address)
