"""Networks that span nodes keep to themselves: other networks, forged sources, machines that are no nodes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from executor_service.network.network import NetworkSpec, SubnetSpec
from executor_service.network.overlay_tunnel import hardware_address
from tests.fixtures.frames import send_datagram, vxlan_frame
from tests.fixtures.netns import Namespace, open_namespace
from tests.fixtures.overlay_nodes import PORT, OverlayNode, machine_on_underlay, overlay_nodes, overlay_spec
from tests.fixtures.overlay_traffic import LOCAL, OTHER, QUIET, SPAN, addresses, arrives, reaches, seen_as, spanned


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


def link_address(node: OverlayNode, name: str) -> str:
    return node.namespace.command("ip", "-o", "link", "show", name).split("link/ether ")[1].split()[0]
