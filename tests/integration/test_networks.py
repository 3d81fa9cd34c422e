"""Several networks on one node: their bridges, endpoints that come and go, and what a crash leaves."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest

from common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, ResourceExhausted
from common.sqlite import Database
from executor_service.container import EndpointSpec
from executor_service.network import records
from executor_service.network.network import Network, SubnetSpec
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import PLAIN, bridge_config, bridge_network, interfaces
from tests.fixtures.netns import command, open_namespace
from tests.fixtures.user_networks import BACK, FRONT, blocked, default_route, on, pings, reaches, sandbox, spec


async def test_a_network_is_chosen_its_addresses_and_gone_without_a_trace(
    network: Sandboxes, database: Database
) -> None:
    before = interfaces()
    first, second = await network.networks.create(spec(FRONT)), await network.networks.create(spec(BACK, mtu=1400))
    assert [str(made.ipv4.subnet) for made in (first, second) if made.ipv4] == ["10.199.0.0/24", "10.199.1.0/24"]
    assert [str(made.ipv6.subnet) for made in (first, second) if made.ipv6] == [
        "fd12:3456:789b::/64",
        "fd12:3456:789b:1::/64",
    ]
    assert interfaces() - before == {"br-ffffffffffff", "br-bbbbbbbbbbbb"}
    assert "inet 10.199.0.1/24" in command("ip", "address", "show", "br-ffffffffffff")
    assert "mtu 1400 " in command("ip", "link", "show", "br-bbbbbbbbbbbb")
    assert await network.networks.create(spec(FRONT)) == first
    with pytest.raises(FailedPrecondition, match="is there with other settings"):
        await network.networks.create(spec(FRONT, internal=True))
    rules = command("nft", "list", "table", "inet", "swtest0")
    assert '"br-ffffffffffff"' in rules
    for network_id in (FRONT, BACK, BACK):
        await network.networks.remove(network_id)
    assert interfaces() == before
    assert "br-" not in command("nft", "list", "table", "inet", "swtest0")
    assert await database.read(records.networks) == []


async def test_subnets_and_bridges_that_are_somebody_elses(network: Sandboxes) -> None:
    taken = SubnetSpec(subnet=IPv4Network("172.30.0.128/25"))
    with pytest.raises(FailedPrecondition, match=r"172\.30\.0\.128/25 overlaps 172\.30\.0\.0/24 of network 'bridge'"):
        await network.networks.create(spec(FRONT, ipv4=taken))
    with pytest.raises(FailedPrecondition, match="bridge 'swtest0' is network 'bridge''s; choose another name"):
        await network.networks.create(spec(FRONT, bridge="swtest0"))
    command("ip", "link", "add", "vpn0", "type", "bridge")
    try:
        command("ip", "address", "add", "10.199.0.77/23", "dev", "vpn0")
        command("ip", "link", "set", "vpn0", "up")
        with pytest.raises(FailedPrecondition, match="'vpn0' exists and was not made by this instance"):
            await network.networks.create(spec(FRONT, bridge="vpn0"))
        made = await network.networks.create(spec(FRONT))
        assert made.ipv4 is not None
        assert str(made.ipv4.subnet) == "10.199.2.0/24"
        with pytest.raises(FailedPrecondition, match=r"overlaps 10\.199\..* through vpn0; choose another subnet"):
            await network.networks.create(spec(BACK, ipv4=SubnetSpec(subnet=IPv4Network("10.199.1.0/24"))))
        assert network.networks.find(BACK) is None
    finally:
        command("ip", "link", "delete", "vpn0")
    with pytest.raises(FailedPrecondition, match="the default network belongs to the executor"):
        await network.networks.remove("bridge")


async def test_no_subnet_is_left(tmp_path: Path, database: Database) -> None:
    config = replace(bridge_config(tmp_path), ipv4_base=IPv4Network("10.199.0.0/24"))
    async with bridge_network(config, database) as network:
        await network.networks.create(spec(FRONT))
        with pytest.raises(ResourceExhausted, match=r"no /24 of 10\.199\.0\.0/24 is free for another network"):
            await network.networks.create(spec(BACK))


async def test_endpoints_in_order_with_the_gateway_that_was_asked_for(network: Sandboxes) -> None:
    await network.networks.create(spec(FRONT))
    await network.networks.create(spec(BACK, ipv6=None))
    both = await sandbox(network, "one", *on(FRONT), EndpointSpec(network_id=BACK, gateway_priority=5))
    assert [(one.interface, one.network_id) for one in both.endpoints] == [("eth0", FRONT), ("eth1", BACK)]
    assert (both.endpoints[1].ipv4_address, both.endpoints[1].ipv6_address) == ("10.199.1.2", "")
    with open_namespace(both.netns_path) as inside:
        assert default_route(inside).startswith("default via 10.199.1.1 dev eth1")
        assert "via fd12:3456:789b::1 dev eth0" in default_route(inside, "-6")
        assert "inet6" not in inside.command("ip", "address", "show", "eth1")
        assert pings(inside, "10.199.0.1")
        assert pings(inside, "10.199.1.1")


async def test_connecting_and_disconnecting_one_that_runs(network: Sandboxes) -> None:
    await network.networks.create(spec(FRONT))
    await network.networks.create(spec(BACK))
    one = await sandbox(network, "one", *PLAIN)
    peer = await sandbox(network, "peer", *on(FRONT))
    address = peer.endpoints[0].ipv4_address
    assert blocked(one, peer, address)

    wanted = EndpointSpec(network_id=FRONT, ipv4_address="10.199.0.50", mac_address="02:00:00:00:00:50")
    connected = await network.connect("one", wanted)
    assert [(end.interface, end.ipv4_address) for end in connected.endpoints][1] == ("eth1", "10.199.0.50")
    assert await network.connect("one", wanted) == connected
    assert reaches(connected, peer, address)
    with open_namespace(one.netns_path) as inside:
        assert "02:00:00:00:00:50" in inside.command("ip", "link", "show", "eth1")
        # "bridge" comes before "net-f".
        assert "via 172.30.0.1 dev eth0" in default_route(inside)

        await network.connect("one", EndpointSpec(network_id=BACK, gateway_priority=1))
        assert "via 10.199.1.1 dev eth2" in default_route(inside)
        assert "via fd12:3456:789b:1::1 dev eth2" in default_route(inside, "-6")
        assert len(default_route(inside, "-6").splitlines()) == 1

        left = await network.disconnect("one", "bridge")
        assert left is not None
        assert [end.interface for end in left.endpoints] == ["eth1", "eth2"]
        assert inside.run(interfaces) == {"lo", "eth1", "eth2"}
        await network.disconnect("one", BACK)
        assert "via 10.199.0.1 dev eth1" in default_route(inside)
        await network.disconnect("one", FRONT)
        await network.disconnect("one", FRONT)
        assert (default_route(inside), default_route(inside, "-6")) == ("", "")
        # The lowest free interface is given again, and what the container had there.
        again = await network.connect("one", EndpointSpec(network_id=FRONT))
        assert (again.endpoints[0].interface, again.endpoints[0].ipv4_address) == ("eth0", "10.199.0.50")


async def test_a_network_in_use_stays(network: Sandboxes) -> None:
    await network.networks.create(spec(FRONT))
    await sandbox(network, "one", *on(FRONT))
    with pytest.raises(FailedPrecondition, match="is in use by the sandbox of container 'one'"):
        await network.networks.remove(FRONT)
    await network.leave("one")
    await network.networks.remove(FRONT)
    with pytest.raises(FailedPrecondition, match="there is no network 'ffff"):
        await sandbox(network, "one", *on(FRONT))
    assert await network.list() == []


async def test_fixed_addresses(network: Sandboxes) -> None:
    subnet = SubnetSpec(
        subnet=IPv4Network("10.77.0.0/24"),
        gateway=ip_address("10.77.0.254"),
        ip_range=IPv4Network("10.77.0.128/25"),
        reserved=(ip_address("10.77.0.128"),),
    )
    await network.networks.create(spec(FRONT, ipv4=subnet, ipv6=None))
    chosen = await sandbox(network, "chosen", *on(FRONT))
    assert (chosen.endpoints[0].ipv4_address, chosen.endpoints[0].ipv4_gateway) == ("10.77.0.129", "10.77.0.254")
    fixed = await sandbox(network, "fixed", *on(FRONT, ipv4_address="10.77.0.5"))
    assert fixed.endpoints[0].ipv4_address == "10.77.0.5"
    assert reaches(chosen, fixed, "10.77.0.5")
    with pytest.raises(AlreadyExists, match=r"10\.77\.0\.5 is in use by container 'fixed'; choose another one"):
        await sandbox(network, "late", *on(FRONT, ipv4_address="10.77.0.5"))
    for bad in ("10.77.0.254", "10.77.0.128", "10.77.0.255", "10.78.0.1", "not one"):
        with pytest.raises(InvalidArgument):
            await sandbox(network, "late", *on(FRONT, ipv4_address=bad))
    with pytest.raises(InvalidArgument, match="has no IPv6 addresses"):
        await sandbox(network, "late", *on(FRONT, ipv6_address="fd00::5"))
    assert {one.id for one in await network.list()} == {"chosen", "fixed"}


async def test_a_freed_address_rests_also_over_a_crash_but_not_for_its_container(
    network: Sandboxes, database: Database, tmp_path: Path
) -> None:
    subnet = SubnetSpec(subnet=IPv4Network("10.77.0.0/24"))
    await network.networks.create(spec(FRONT, ipv4=subnet))
    first = await sandbox(network, "one", *on(FRONT, ipv4_address="10.77.0.3"))
    await sandbox(network, "two", *on(FRONT))
    await network.leave("one")
    async with Sandboxes(bridge_config(tmp_path), database) as again:
        await again.reconcile({"two": on(FRONT)})
        other = await sandbox(again, "other", *on(FRONT))  # the cursor was just before it
        assert other.endpoints[0].ipv4_address == "10.77.0.4"
        one = await sandbox(again, "one", *on(FRONT))
        assert one.netns_path != first.netns_path
        assert one.endpoints == first.endpoints, "addresses of both families, and the hardware address"
        with open_namespace(one.netns_path) as inside:
            assert first.endpoints[0].mac_address in inside.command("ip", "link", "show", "eth0")
        assert reaches(other, one, "10.77.0.3")
        await again.leave("one")
        asked = await sandbox(again, "asks for it", *on(FRONT, ipv4_address="10.77.0.3"))
        assert asked.endpoints[0].ipv4_address == "10.77.0.3"
        assert asked.endpoints[0].mac_address != first.endpoints[0].mac_address
        late = await sandbox(again, "one", *on(FRONT))
        assert late.endpoints[0].ipv4_address == "10.77.0.5", "it is somebody else's now"
        assert late.endpoints[0].ipv6_address == first.endpoints[0].ipv6_address


async def test_a_sandbox_lives_as_long_as_a_member(network: Sandboxes) -> None:
    await network.networks.create(spec(FRONT))
    owner = await sandbox(network, "owner", *on(FRONT))
    assert await network.join("sidecar", "owner") == owner
    await network.leave("owner")
    assert await network.list() == [owner]
    # The owner comes back to what it had: namespace, addresses, MAC.
    assert await sandbox(network, "owner", *on(FRONT)) == owner
    await network.leave("owner")
    await network.leave("sidecar")
    await network.leave("sidecar")
    assert await network.list() == []
    with pytest.raises(FailedPrecondition, match="'owner' has no network of its own to share: it does not run"):
        await network.join("sidecar", "owner")


async def test_addresses_of_a_removed_owner_are_kept_for_nobody_when_its_sidecar_ends(
    network: Sandboxes, database: Database
) -> None:
    """Unless one of that id is made again meanwhile and goes on with the sandbox."""
    await network.networks.create(spec(FRONT))

    async def owners() -> set[str]:
        statement = "SELECT container FROM network_freed_addresses"
        return {owner for (owner,) in await database.read(lambda rows: rows.execute(statement).fetchall())}

    for again, kept_for in ((False, {""}), (True, {"owner"})):
        await sandbox(network, "owner", *on(FRONT))
        await network.join("sidecar", "owner")
        await network.leave("owner")
        await network.forget("owner")
        if again:
            await sandbox(network, "owner", *on(FRONT))
            await network.leave("owner")
        await network.leave("sidecar")
        assert kept_for <= await owners()
        assert ("owner" in await owners()) is again


async def test_after_a_crash_networks_stand_and_endpoints_are_those_on_record(
    network: Sandboxes, database: Database, tmp_path: Path
) -> None:
    made: list[Network] = [await network.networks.create(spec(name)) for name in (FRONT, BACK)]
    await sandbox(network, "one", *on(FRONT))
    await network.connect("one", EndpointSpec(network_id=BACK))  # and was killed before it was on record
    await sandbox(network, "two", *on(FRONT, BACK))
    await network.join("sidecar", "two")
    command("ip", "link", "delete", "br-bbbbbbbbbbbb")  # as a reboot would
    async with Sandboxes(bridge_config(tmp_path), database) as again:
        assert list(again.networks.list())[1:] == sorted(made, key=lambda one: one.id)
        assert "br-bbbbbbbbbbbb" in interfaces()
        await again.reconcile({"one": on(FRONT), "sidecar": ()})
        left = {one.id: [end.network_id for end in one.endpoints] for one in await again.list()}
        assert left == {"one": [FRONT], "two": [FRONT, BACK]}
        await again.reconcile({})
        assert await again.list() == []


async def test_a_network_that_cannot_be_had_again_stays_on_record(
    network: Sandboxes, database: Database, tmp_path: Path
) -> None:
    made = await network.networks.create(spec(FRONT))
    command("ip", "link", "delete", made.bridge)
    command("ip", "link", "add", made.bridge, "type", "bridge")
    async with Sandboxes(bridge_config(tmp_path), database) as again:
        for _ in range(2):
            with pytest.raises(FailedPrecondition, match="was not made by this instance"):
                await again.networks.create(spec(FRONT))
        with pytest.raises(FailedPrecondition, match="mend that, and restart the executor"):
            await sandbox(again, "one", *on(FRONT))
        command("ip", "link", "delete", made.bridge)
        assert await again.networks.create(spec(FRONT)) == made
        await sandbox(again, "one", *on(FRONT))
        await again.leave("one")


async def test_a_bridge_is_made_when_what_stood_in_its_way_is_gone(
    network: Sandboxes, database: Database, tmp_path: Path
) -> None:
    made = await network.networks.create(spec(FRONT))
    command("ip", "link", "delete", made.bridge)
    command("ip", "link", "add", made.bridge, "type", "bridge")
    async with Sandboxes(bridge_config(tmp_path), database) as again:
        await again.restore_bridges()  # nothing has changed, and nothing is to be tried again
        command("ip", "link", "delete", made.bridge)
        await again.restore_bridges()
        await sandbox(again, "one", *on(FRONT))
        await again.leave("one")


async def test_what_the_kernel_refuses_is_said_and_leaves_nothing(network: Sandboxes) -> None:
    before = interfaces()
    with pytest.raises(FailedPrecondition, match=r"Invalid argument|Numerical result out of range") as refused:
        await network.networks.create(spec(FRONT, mtu=70_000))
    assert refused.value.reason == "BRIDGE_UNAVAILABLE"
    assert interfaces() == before
    assert network.networks.find(FRONT) is None


async def test_a_bridge_that_is_not_to_be_had_keeps_no_other_from_coming_back(network: Sandboxes) -> None:
    front, back = [await network.networks.create(spec(name)) for name in (FRONT, BACK)]
    for one in (front, back):
        command("ip", "link", "delete", one.bridge)
    command("ip", "link", "add", front.bridge, "type", "bridge")
    with pytest.raises(FailedPrecondition, match="was not made by this instance"):
        await network.restore_bridges()
    await sandbox(network, "one", *on(BACK))
    command("ip", "link", "delete", front.bridge)
    await network.restore_bridges()
    await sandbox(network, "two", *on(FRONT))
