"""Macvlan networks on the real kernel: containers are neighbours of the machines on their parent's link, and not of
the host they run on."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from common.errors import FailedPrecondition, SlipwayError
from common.sqlite import Database
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.network.network import Driver, MacvlanLink, MacvlanMode, NetworkSpec, SubnetSpec
from executor_service.network.sandbox import Sandbox
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import bridge_config, bridge_network, interfaces
from tests.fixtures.lan import HOST_IPV4, MACHINE_IPV4, MACHINE_IPV6, lan_machine
from tests.fixtures.netns import Namespace, command, open_namespace

LAN, OTHER = "1a" * 32, "1b" * 32


@pytest.fixture
def machine() -> Iterator[Namespace]:
    with lan_machine() as other:
        yield other


@pytest.fixture
async def network(machine: Namespace, database: Database, tmp_path: Path) -> AsyncIterator[Sandboxes]:
    async with bridge_network(bridge_config(tmp_path), database) as made:
        yield made


def spec(
    network_id: str = LAN,
    *,
    mode: MacvlanMode = MacvlanMode.BRIDGE,
    parent: str = "lan0",
    subnet: int = 88,
    internal: bool = False,
) -> NetworkSpec:
    return NetworkSpec(
        id=network_id,
        name=f"lan{subnet}",
        macvlan=MacvlanLink(parent=parent, mode=mode),
        ipv4=SubnetSpec(
            subnet=IPv4Network(f"10.{subnet}.0.0/24"),
            gateway=IPv4Address(f"10.{subnet}.0.1"),
            ip_range=IPv4Network(f"10.{subnet}.0.128/25"),
            reserved=(IPv4Address(f"10.{subnet}.0.129"),),
        ),
        ipv6=SubnetSpec(subnet=IPv6Network(f"fd00:{subnet}::/64"), gateway=IPv6Address(f"fd00:{subnet}::1")),
        internal=internal,
    )


async def lan_sandbox(network: Sandboxes, name: str, *, mac_address: str = "") -> Sandbox:
    endpoint = EndpointSpec(network_id=LAN, mac_address=mac_address)
    return await network.create(name, mode=NetworkMode.BRIDGE, endpoints=(endpoint,))


def reaches(source: Namespace, address: str, *, tries: int = 30) -> bool:
    """An interface that has just come up is not in its multicast groups at once."""
    for _ in range(tries):
        with suppress(subprocess.CalledProcessError):
            source.command("busybox", "ping", "-c1", "-W1", address)
            return True
    return False


async def test_a_container_is_a_machine_of_the_link_and_the_host_does_not_reach_it(
    network: Sandboxes, machine: Namespace
) -> None:
    before, rules = interfaces(), command("nft", "list", "ruleset")
    made = await network.networks.create(spec())
    assert await network.networks.create(spec()) == made
    assert command("nft", "list", "ruleset") == rules
    sandbox = await lan_sandbox(network, "one", mac_address="02:00:00:00:88:01")
    (endpoint,) = sandbox.endpoints
    assert (endpoint.interface, endpoint.ipv4_address) == ("eth0", "10.88.0.128")
    assert interfaces() == before
    with open_namespace(sandbox.netns_path) as inside:
        shown = inside.command("ip", "-d", "link", "show", "eth0")
        assert "macvlan mode bridge" in shown
        assert "02:00:00:00:88:01" in shown
        for address in (MACHINE_IPV4, MACHINE_IPV6):
            assert reaches(inside, address)
        for address in (endpoint.ipv4_address, endpoint.ipv6_address):
            assert reaches(machine, address)
        assert "02:00:00:00:88:01" in machine.command("ip", "neighbour", "show", endpoint.ipv4_address)
        assert "default via 10.88.0.1 dev eth0" in inside.command("ip", "route")
        assert not reaches(inside, HOST_IPV4, tries=1)
        with pytest.raises(subprocess.CalledProcessError):
            command("busybox", "ping", "-c1", "-W1", endpoint.ipv4_address)


@pytest.mark.parametrize(("mode", "talk"), [("bridge", True), ("private", False), ("vepa", False)])
async def test_the_mode_says_whether_containers_reach_each_other(
    network: Sandboxes, machine: Namespace, mode: str, talk: bool
) -> None:
    await network.networks.create(spec(mode=MacvlanMode(mode)))
    one, two = await lan_sandbox(network, "one"), await lan_sandbox(network, "two")
    assert two.endpoints[0].network_driver is Driver.MACVLAN
    assert two.endpoints[0].ipv4_address == "10.88.0.130"  # the auxiliary address between them is nobody's
    with open_namespace(one.netns_path) as inside:
        assert f"macvlan mode {mode}" in inside.command("ip", "-d", "link", "show", "eth0")
        assert reaches(inside, two.endpoints[0].ipv4_address, tries=30 if talk else 1) is talk
        assert reaches(inside, MACHINE_IPV4)


async def test_passthru_gives_the_parent_to_one_and_takes_it_back(network: Sandboxes, machine: Namespace) -> None:
    before = command("ip", "-o", "link", "show", "lan0").split("link/ether")[1]
    await network.networks.create(spec(mode=MacvlanMode.PASSTHRU))
    with pytest.raises(FailedPrecondition, match="parent 'lan0' is network 'lan88''s, and one with mode passthru"):
        await network.networks.create(spec(OTHER, subnet=89))
    for _ in range(2):
        one = await lan_sandbox(network, "one", mac_address="02:00:00:00:88:01")
        with open_namespace(one.netns_path) as inside:
            assert "02:00:00:00:88:01" in inside.command("ip", "link", "show", "eth0")
            assert reaches(inside, MACHINE_IPV4)
        with pytest.raises(SlipwayError, match="create eth0 as macvlan of the parent, mode passthru"):
            await lan_sandbox(network, "two")
        await network.leave("one")
    assert command("ip", "-o", "link", "show", "lan0").split("link/ether")[1] == before


async def test_networks_share_a_parent_and_containers_come_and_go(network: Sandboxes, machine: Namespace) -> None:
    await network.networks.create(spec())
    await network.networks.create(spec(OTHER, subnet=89, internal=True))
    with pytest.raises(FailedPrecondition, match=r"subnet 10.88.0.0/24 overlaps 10.88.0.0/24 of network 'lan88'"):
        await network.networks.create(spec("1c" * 32))
    await network.create("one", mode=NetworkMode.BRIDGE, endpoints=(EndpointSpec(network_id="bridge"),))
    for _ in range(2):
        sandbox = await network.connect("one", EndpointSpec(network_id=LAN, gateway_priority=1))
        with open_namespace(sandbox.netns_path) as inside:
            assert reaches(inside, MACHINE_IPV4)
            assert "default via 10.88.0.1 dev eth1" in inside.command("ip", "route")
            inside.command("ip", "link", "set", "eth1", "down")
            inside.command("ip", "link", "set", "eth1", "name", "hidden", "address", "02:00:00:00:00:99", "up")
            left = await network.disconnect("one", LAN)
            assert left is not None
            assert inside.run(interfaces) == {"lo", "eth0"}
            assert "default via 172.30.0.1 dev eth0" in inside.command("ip", "route")
    sandbox = await network.connect("one", EndpointSpec(network_id=OTHER, gateway_priority=1))
    with open_namespace(sandbox.netns_path) as inside:
        assert "default via 172.30.0.1 dev eth0" in inside.command("ip", "route")


async def test_a_hardware_address_is_free_again_at_once(network: Sandboxes) -> None:
    """The kernel collects a namespace some time later, and gives no address of a link twice."""
    await network.networks.create(spec())
    for _ in range(5):
        await lan_sandbox(network, "one", mac_address="02:00:00:00:88:01")
        await network.leave("one")


async def test_the_next_executor_adopts_it_and_waits_for_no_parent(
    network: Sandboxes, machine: Namespace, database: Database, tmp_path: Path
) -> None:
    made = await network.networks.create(spec())
    kept = await lan_sandbox(network, "kept")
    command("ip", "link", "set", "lan0", "name", "away0")
    try:
        async with Sandboxes(bridge_config(tmp_path), database) as again:
            await again.reconcile({"kept": (EndpointSpec(network_id=LAN),)})
            assert again.networks.find(LAN) == made
            assert await again.list() == [kept]
            with open_namespace(kept.netns_path) as inside:
                assert reaches(inside, MACHINE_IPV4)
            with pytest.raises(FailedPrecondition, match="network 'lan88' could not be set up"):
                await lan_sandbox(again, "new")
            command("ip", "link", "set", "away0", "name", "lan0")
            new = await lan_sandbox(again, "new")
            with open_namespace(new.netns_path) as inside:
                assert reaches(inside, MACHINE_IPV4)
    finally:
        if "away0" in interfaces():
            command("ip", "link", "set", "away0", "name", "lan0")


@pytest.mark.parametrize(
    ("parent", "why"),
    [
        ("gone0", "there is no interface 'gone0' on this node; give the name of one"),
        (
            "lan0.10",
            r"'ip link add link lan0 name lan0.10 type vlan id 10', for which the kernel needs CONFIG_VLAN_8021Q",
        ),
        ("lo", "parent 'lo' is no Ethernet interface"),
    ],
)
async def test_a_parent_that_cannot_be_had_is_refused_and_nothing_kept(
    network: Sandboxes, parent: str, why: str
) -> None:
    with pytest.raises(FailedPrecondition, match=why):
        await network.networks.create(spec(parent=parent))
    assert network.networks.find(LAN) is None
