"""Networks that span nodes: who talks to whom across them, what is refused, and what comes back by itself.

Nodes are network namespaces on one underlay, each with the executor's own network in it.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from common.errors import FailedPrecondition
from executor_service.container import EndpointSpec
from executor_service.network import firewall, overlay_driver
from executor_service.network.network import Network, NetworkSpec, SubnetSpec
from executor_service.network.overlay_tunnel import hardware_address
from executor_service.network.sandbox import Sandbox
from tests.fixtures.bridge import exchange
from tests.fixtures.frames import PAYLOAD, send_datagram, vxlan_frame
from tests.fixtures.netns import Namespace, open_namespace
from tests.fixtures.overlay_nodes import (
    PORT,
    OverlayNode,
    machine_on_underlay,
    overlay_nodes,
    overlay_spec,
    peer_of,
    slices,
    underlay,
    vni_of,
)

SPAN, OTHER, LOCAL = "1" * 64, "2" * 64, "b" * 64
QUIET = 0.4  # seconds in which what was let through would have come


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[OverlayNode]]:
    async with overlay_nodes(tmp_path, 2) as nodes:
        yield nodes


async def spanned(nodes: list[OverlayNode], network_id: str = SPAN, **more: Any) -> list[Network]:
    """The network, on every node."""
    return [
        await node.create(overlay_spec(node, network_id, *(peer for peer in nodes if peer is not node), **more))
        for node in nodes
    ]


def addresses(sandbox: Sandbox, network_id: str = SPAN) -> tuple[str, str]:
    (endpoint,) = (one for one in sandbox.endpoints if one.network_id == network_id)
    return endpoint.ipv4_address, endpoint.ipv6_address


def seen_as(client: Namespace, server: Namespace, address: str, *, timeout: float = 30) -> str:
    """The address that the server saw; empty when nothing came through."""
    try:
        return exchange(client, server, address, timeout=timeout)
    except OSError:
        return ""


def reaches(client: Sandbox | Namespace, server: Sandbox, address: str, *, timeout: float = 30) -> str:
    with ExitStack() as stack:
        here = client if isinstance(client, Namespace) else stack.enter_context(open_namespace(client.netns_path))
        there = stack.enter_context(open_namespace(server.netns_path))
        return seen_as(here, there, address, timeout=timeout)


def arrives(server: Sandbox, address: str, send: Callable[[int], None], *, wait: float = 30) -> bool:
    """Whether what `send` sends to the port that it is told comes to the container's address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        open_namespace(server.netns_path) as inside,
        inside.socket(family, socket.SOCK_DGRAM, timeout=wait) as listening,
    ):
        listening.bind((address, 0))
        send(listening.getsockname()[1])
        try:
            return listening.recv(64) == PAYLOAD
        except TimeoutError:
            return False


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


async def test_networks_are_apart_across_nodes_too(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes)
    await spanned(nodes, OTHER)
    await second.create(NetworkSpec(id=LOCAL, name="local", ipv4=SubnetSpec(), ipv6=SubnetSpec()))
    one = await first.sandbox("one", SPAN)
    other, local, plain = (
        await second.sandbox("other", OTHER),
        await second.sandbox("local", LOCAL),
        await second.sandbox("plain", "bridge"),
    )
    two = await second.sandbox("two", SPAN)
    for stranger, network_id in ((other, OTHER), (local, LOCAL), (plain, "bridge")):
        for address in addresses(two):
            assert not reaches(stranger, two, address, timeout=QUIET)
        for address in addresses(one):
            assert not reaches(stranger, one, address, timeout=QUIET)
        for address in addresses(stranger, network_id):
            assert not reaches(one, stranger, address, timeout=QUIET)
    # One that is on both reaches both, whichever is its way out.
    both = await first.sandbox("both", "bridge", SPAN, OTHER)
    assert reaches(both, two, addresses(two)[0]) == addresses(both)[0]
    assert reaches(both, other, addresses(other, OTHER)[1]) == addresses(both, OTHER)[1]
    # A container of another node does not reach this node itself, by whichever of its addresses.
    with open_namespace(one.netns_path) as inside:
        for address in ("10.121.2.1", "10.122.2.1", "172.30.0.1"):
            assert not seen_as(inside, second.namespace, address, timeout=QUIET)


async def test_forged_sources_are_dropped_on_both_sides(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    (endpoint,) = one.endpoints
    router = link_address(first, f"br-{SPAN[:12]}")
    for honest, forged, destination, gateway in (
        (endpoint.ipv4_address, "10.121.2.77", addresses(two)[0], router),
        (endpoint.ipv6_address, "fd00:121:0:2::77", addresses(two)[1], router),
        (endpoint.ipv4_address, "198.51.100.7", addresses(two)[0], router),
    ):
        for source, comes in ((honest, True), (forged, False)):
            with open_namespace(one.netns_path) as inside:

                def send(port: int, source: str = source, destination: str = destination, to: str = gateway) -> None:
                    send_datagram(inside, "eth0", source=source, destination=destination, port=port, router=to)

                assert arrives(two, destination, send, wait=30 if comes else QUIET) is comes, source


async def test_frames_of_machines_that_are_no_nodes_are_dropped(tmp_path: Path) -> None:
    async with overlay_nodes(tmp_path, 3) as nodes:
        first, second, third = nodes
        await spanned([first, second])
        await third.create(overlay_spec(third, OTHER, first))  # a node, and none of this network's
        await first.create(overlay_spec(first, OTHER, third))
        one = await first.sandbox("one", SPAN)
        neighbour = await second.sandbox("neighbour", SPAN)
        on_default = await second.sandbox("default", "bridge")
        (link,) = [network.overlay for network in first.network.networks.list() if network.id == SPAN]
        assert link is not None
        router = hardware_address(link, first.address)

        def frames_from(sender: Namespace, source: str, destination: str, underlay: str) -> Callable[[int], None]:
            def send(port: int) -> None:
                family = socket.AF_INET6 if ":" in underlay else socket.AF_INET
                frame = vxlan_frame(vni=link.vni, router=router, source=source, destination=destination, port=port)
                with sender.socket(family, socket.SOCK_DGRAM) as wire:
                    wire.sendto(frame, (underlay, PORT))

            return send

        with (
            machine_on_underlay(9) as stranger,
            open_namespace(neighbour.netns_path) as member,
            open_namespace(on_default.netns_path) as container,
        ):
            for source, destination in (("10.121.2.2", addresses(one)[0]), ("fd00:121:0:2::2", addresses(one)[1])):
                # The same frame from a node of the network is heard: it is the sender that counts.
                assert arrives(one, destination, frames_from(second.namespace, source, destination, "10.90.0.1"))
                for sender in (stranger, third.namespace, member, container):
                    send = frames_from(sender, source, destination, "10.90.0.1")
                    assert not arrives(one, destination, send, wait=QUIET)
                send = frames_from(stranger, source, destination, "fd00:90::1")
                assert not arrives(one, destination, send, wait=QUIET)
            # A node of the network cannot send in the name of one that is none, or of the node itself.
            for source in ("10.121.3.2", "10.121.1.2", "10.121.1.1", "192.0.2.7"):
                send = frames_from(second.namespace, source, addresses(one)[0], "10.90.0.1")
                assert not arrives(one, addresses(one)[0], send, wait=QUIET)


async def test_containers_cannot_send_a_nodes_frames_by_whatever_way(nodes: list[OverlayNode]) -> None:
    """To the node itself, in the name of another node: from a container there, and from one on another node."""
    first, second = nodes
    await spanned(nodes)
    victim, near = await first.sandbox("victim", SPAN), await first.sandbox("near", SPAN)
    apart, far = await first.sandbox("apart", "bridge"), await second.sandbox("far", SPAN)
    (link,) = [network.overlay for network in first.network.networks.list() if network.id == SPAN]
    assert link is not None
    router = hardware_address(link, first.address)
    bridge, default = link_address(first, f"br-{SPAN[:12]}"), link_address(first, "swtest0")
    remote = link_address(second, f"br-{SPAN[:12]}")
    (address, address6) = addresses(victim)
    for inner, destination in (("10.121.2.2", address), ("fd00:121:0:2::2", address6)):
        for sender, gateway, target in (
            (near, bridge, "10.90.0.1"),
            (near, bridge, "10.121.1.1"),
            (apart, default, "10.90.0.1"),
            (apart, default, "172.30.0.1"),
            (far, remote, "10.90.0.1"),
            (far, remote, "10.121.1.1"),
        ):
            own = sender.endpoints[0].ipv4_address
            for outer in (own, "10.90.0.2"):
                with open_namespace(sender.netns_path) as inside:

                    def send(
                        port: int,
                        inner: str = inner,
                        destination: str = destination,
                        outer: str = outer,
                        target: str = target,
                        gateway: str = gateway,
                        inside: Namespace = inside,
                    ) -> None:
                        frame = vxlan_frame(
                            vni=link.vni, router=router, source=inner, destination=destination, port=port
                        )
                        send_datagram(
                            inside, "eth0", source=outer, destination=target, port=PORT, router=gateway, payload=frame
                        )

                    assert not arrives(victim, destination, send, wait=0.15), (sender.id, outer, target)


async def test_an_internal_network_reaches_its_other_nodes_and_nothing_else(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes, internal=True)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    for address in addresses(two):
        assert reaches(one, two, address)
    with open_namespace(one.netns_path) as inside, machine_on_underlay(9) as outside:
        routes = inside.command("ip", "route").splitlines()
        assert [line.split(" dev ")[0] for line in routes] == ["10.121.0.0/16 via 10.121.1.1", "10.121.1.0/24"]
        inside.command("ip", "route", "add", "default", "via", "10.121.1.1")
        assert not seen_as(inside, outside, "10.90.0.9", timeout=QUIET)
        assert not seen_as(inside, second.namespace, "10.90.0.2", timeout=QUIET)


async def test_the_world_is_reached_as_the_node_and_does_not_reach_in(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    with open_namespace(one.netns_path) as inside, machine_on_underlay(9) as outside:
        assert seen_as(inside, outside, "10.90.0.9") == "10.90.0.1"
        outside.command("ip", "route", "add", "10.121.0.0/16", "via", "10.90.0.1")
        for container in (one, two):
            assert not reaches(outside, container, addresses(container)[0], timeout=QUIET)


async def test_without_icc_no_container_of_another_node_is_reached(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes, icc=False)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    for address in addresses(two):
        assert not reaches(one, two, address, timeout=QUIET)


async def test_what_somebody_deletes_comes_back(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    for victim in (f"vx-{SPAN[:12]}", f"br-{SPAN[:12]}"):
        first.namespace.command("ip", "link", "delete", victim)
        async with asyncio.timeout(60):
            while not reaches(one, two, addresses(two)[0], timeout=0.2):
                await asyncio.sleep(0)
        assert reaches(two, one, addresses(one)[1])


async def test_a_new_executor_finds_the_peers_and_makes_what_is_gone(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await first.create(overlay_spec(first, SPAN))
    await second.create(overlay_spec(second, SPAN, first))
    await first.set_peers(SPAN, second, version=7)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    for link in (f"vx-{SPAN[:12]}", f"br-{SPAN[:12]}"):  # as a reboot would
        await first.do(_deleted(link))
    first.namespace.command("nft", "delete", "table", "inet", "swtest0")

    async def restarted() -> int:
        async with first.opened() as again:
            await again.reconcile({"one": (EndpointSpec(network_id=SPAN),)})
            network = again.networks.find(SPAN)
            assert network is not None
            assert network.underlay is not None
            return network.underlay.version

    assert await first.do(restarted()) == 7
    for address in addresses(two):
        assert reaches(one, two, address)


async def _deleted(link: str) -> None:
    """While the watch of the running executor cannot act on it: its loop is busy here."""
    subprocess.run(["ip", "link", "delete", link], check=True)  # noqa: ASYNC221


async def test_a_create_that_fails_at_any_step_leaves_nothing(
    nodes: list[OverlayNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = nodes
    links, rules = first.namespace.command("ip", "-o", "link"), first.namespace.command("nft", "list", "ruleset")
    for module, step in ((overlay_driver, "ensure_tunnel"), (firewall, "add_network")):
        with monkeypatch.context() as patch:

            def fails(*arguments: object, **more: object) -> None:
                raise OSError(5, "made to fail")

            patch.setattr(module, step, fails)
            with pytest.raises(FailedPrecondition, match="made to fail"):
                await first.create(overlay_spec(first, SPAN))
        assert first.namespace.command("ip", "-o", "link") == links
        assert first.namespace.command("nft", "list", "ruleset") == rules
        assert first.network.networks.find(SPAN) is None


async def test_peers_that_could_not_be_set_are_on_record_and_set_by_the_repeat(
    nodes: list[OverlayNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = nodes
    await first.create(overlay_spec(first, SPAN))
    await second.create(overlay_spec(second, SPAN, first))
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    with monkeypatch.context() as patch:

        def fails(*arguments: object, **more: object) -> None:
            raise OSError(5, "made to fail")

        patch.setattr(overlay_driver, "change_peers", fails)
        with pytest.raises(FailedPrecondition, match="made to fail; repeat the request"):
            await first.set_peers(SPAN, second, version=2)
    await first.set_peers(SPAN, second, version=2)
    assert reaches(one, two, addresses(two)[0])


@pytest.mark.parametrize("step", ["rules", "tunnel"])
async def test_whoever_dies_while_peers_are_set_is_made_good_by_the_next_executor(
    nodes: list[OverlayNode], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, second = nodes
    await first.create(overlay_spec(first, SPAN))
    await second.create(overlay_spec(second, SPAN, first))
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    with monkeypatch.context() as patch:

        def dies(*arguments: object, **more: object) -> None:
            raise OSError(5, "made to fail")

        patch.setattr(*((firewall, "change_network") if step == "rules" else (overlay_driver, "change_peers")), dies)
        with pytest.raises(FailedPrecondition, match="made to fail"):
            await first.set_peers(SPAN, second, version=2)
    assert not reaches(one, two, addresses(two)[0], timeout=QUIET)

    async def restarted() -> None:
        async with first.opened() as again:
            await again.reconcile({"one": (EndpointSpec(network_id=SPAN),)})

    await first.do(restarted())
    for address in addresses(two):
        assert reaches(one, two, address)


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


def link_address(node: OverlayNode, name: str) -> str:
    return node.namespace.command("ip", "-o", "link", "show", name).split("link/ether ")[1].split()[0]
