"""Overlay networks over fake executors: slices, what each node is told of the others, what one that was away is."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from slipway.executor.v1 import network_store_service_pb2 as node_pb2
from slipway.v1 import container_pb2, node_service_pb2
from slipway.v1 import container_service_pb2 as container_service
from slipway.v1 import network_service_pb2 as pb2

from api_service.nodes.lease import LeaseTerms
from api_service.records.container import ContainerRecord
from api_service.records.container_repository import Changed
from common.errors import FailedPrecondition
from tests.fixtures.api import PATIENCE, Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor, serving_nodes
from tests.fixtures.shared_store import SharedStore

Fakes = Mapping[str, FakeExecutor]


@pytest.fixture
async def executors(tmp_path: Path) -> AsyncIterator[Fakes]:
    async with serving_nodes(tmp_path, "a", "b", "c") as fakes:
        for number, fake in enumerate(fakes.values(), 1):
            fake.overlay_address = f"10.90.0.{number}"
        yield fakes


@pytest.fixture
async def cluster(tmp_path: Path, executors: Fakes) -> AsyncIterator[Api]:
    async with running_api(tmp_path, executors["a"], configured=False) as api:
        await api.add_nodes(executors)
        await api.load()
        yield api


async def make(api: Api, name: str = "wide", **fields: Any) -> str:
    request = pb2.CreateNetworkRequest(name=name, driver="overlay", **fields)
    return (await api.networks.CreateNetwork(request)).id


async def inspect(api: Api, network: str = "wide") -> pb2.Network:
    return (await api.networks.InspectNetwork(pb2.InspectNetworkRequest(network=network))).network


async def create_on(
    api: Api, node: str, name: str, network: str = "wide", *, aliases: tuple[str, ...] = (), **host: Any
) -> str:
    request = container_service.CreateContainerRequest(
        name=name,
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
        host_config=container_pb2.HostConfig(network_mode=network, placement=on(node), **host),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={network: container_pb2.EndpointSettings(aliases=aliases)}
        ),
    )
    return (await api.containers.CreateContainer(request)).id


def on(*nodes: str) -> container_pb2.Placement:
    return container_pb2.Placement(constraints=[f"node.name!={one}" for one in {"a", "b", "c"} - set(nodes)])


async def run_on(api: Api, node: str, name: str, **more: Any) -> str:
    container_id = await create_on(api, node, name, **more)
    await api.start(container_id)
    return container_id


def known(fake: FakeExecutor, network: str) -> node_pb2.OverlayLink:
    return fake.networks[network].overlay


def peers(fake: FakeExecutor, network: str) -> set[tuple[str, str]]:
    spec = fake.networks.get(network)
    return {(one.address, one.ipv4) for one in spec.overlay.underlay.peers} if spec is not None else set()


def elsewhere(fake: FakeExecutor, network: str) -> dict[str, list[str]]:
    """Addresses by the containers' own names."""
    told = fake.names_elsewhere.get(network)
    return {one.names[0]: list(one.addresses) for one in told.containers} if told is not None else {}


async def test_a_network_spans_the_nodes_that_have_a_container_on_it(cluster: Api, executors: Fakes) -> None:
    network_id = await make(cluster)
    shown = await inspect(cluster)
    assert (shown.driver, shown.node, dict(shown.overlay.slices)) == ("overlay", "", {})
    assert [config.subnet for config in shown.ipam.config] == ["10.64.0.0/18", "fd53:6c69:7000::/48"]
    assert shown.overlay.options.port == 4789
    assert not any(network_id in fake.networks for fake in executors.values())

    one = await run_on(cluster, "b", "one", aliases=("web",))
    assert peers(executors["b"], network_id) == set()
    two = await run_on(cluster, "a", "two", aliases=("web",))
    link = known(executors["a"], network_id)
    assert (link.vni, link.ipv4, link.underlay.local) == (shown.overlay.vni, "10.64.0.0/18", "10.90.0.1")
    assert executors["a"].networks[network_id].ipv4.subnet == "10.64.1.0/24"
    assert peers(executors["a"], network_id) == {("10.90.0.2", "10.64.0.0/24")}
    await executors["b"].until(lambda: peers(executors["b"], network_id) == {("10.90.0.1", "10.64.1.0/24")})
    assert network_id not in executors["c"].networks

    for name, other in (("a", "one"), ("b", "two")):
        fake = executors[name]
        await fake.until(lambda fake=fake, other=other: set(elsewhere(fake, network_id)) == {other})  # type: ignore[misc]
    (told,) = executors["a"].names_elsewhere[network_id].containers
    assert (list(told.names)[:3], list(told.addresses)) == (["one", "web", one[:12]], ["10.64.0.2"])
    shown = await inspect(cluster)
    assert {name: (one.address, one.ipv4, one.ipv6) for name, one in shown.overlay.slices.items()} == {
        "a": ("10.90.0.1", "10.64.1.0/24", "fd53:6c69:7000:1::/64"),
        "b": ("10.90.0.2", "10.64.0.0/24", "fd53:6c69:7000::/64"),
    }
    assert {one.name for one in shown.containers.values()} == {"one", "two"}

    # A join costs each other node one message about peers, and the second container there none.
    before = [list(fake.calls) for fake in executors.values()]
    await run_on(cluster, "c", "three")
    await run_on(cluster, "c", "four")
    for name in ("a", "b"):
        fake = executors[name]
        await fake.until(lambda fake=fake: {"three", "four"} <= set(elsewhere(fake, network_id)))  # type: ignore[misc]
    after = [list(fake.calls) for fake in executors.values()]
    messages = [now[len(then) :].count("SetOverlayPeers") for then, now in zip(before, after, strict=True)]
    assert messages[:2] == [1, 1]
    assert after[2][len(before[2]) :].count("CreateNetwork") == 1
    assert two in executors["a"].containers


async def test_names_follow_renames_ends_and_disconnects(cluster: Api, executors: Fakes) -> None:
    network_id, here = await make(cluster), executors["a"]
    await run_on(cluster, "a", "here")
    there = await run_on(cluster, "b", "there")
    await here.until(lambda: elsewhere(here, network_id) == {"there": ["10.64.1.2"]})
    await cluster.containers.RenameContainer(
        container_service.RenameContainerRequest(container="there", new_name="moved")
    )
    await here.until(lambda: set(elsewhere(here, network_id)) == {"moved"})
    executors["b"].exit(there)
    await here.until(lambda: elsewhere(here, network_id) == {})
    await cluster.start("moved")
    await here.until(lambda: set(elsewhere(here, network_id)) == {"moved"})
    gone = pb2.DisconnectContainerRequest(network="wide", container="moved")
    await cluster.networks.DisconnectContainer(gone)
    await here.until(lambda: elsewhere(here, network_id) == {})
    await cluster.networks.ConnectContainer(pb2.ConnectContainerRequest(network="wide", container="moved"))
    await here.until(lambda: set(elsewhere(here, network_id)) == {"moved"})
    await cluster.remove("moved", force=True)
    await here.until(lambda: elsewhere(here, network_id) == {})


async def test_a_connect_brings_the_network_to_the_node(cluster: Api, executors: Fakes) -> None:
    network_id = await make(cluster)
    await cluster.run(name="plain", placement=on("c"))
    await cluster.networks.ConnectContainer(pb2.ConnectContainerRequest(network="wide", container="plain"))
    assert known(executors["c"], network_id).underlay.local == "10.90.0.3"
    assert set((await inspect(cluster)).overlay.slices) == {"c"}


async def test_a_node_that_was_away_is_told_everything_when_it_is_back(cluster: Api, executors: Fakes) -> None:
    network_id, away = await make(cluster), executors["a"]
    await run_on(cluster, "a", "here")
    await away.down()
    await cluster.node_in("a", node_service_pb2.NODE_STATE_UNREACHABLE)
    await run_on(cluster, "b", "there")
    assert peers(away, network_id) == set()
    await away.up()
    await away.until(lambda: peers(away, network_id) == {("10.90.0.2", "10.64.1.0/24")})
    await away.until(lambda: set(elsewhere(away, network_id)) == {"there"})
    # One that has lost everything is given the network again, and its names.
    await away.down()
    await cluster.node_in("a", node_service_pb2.NODE_STATE_UNREACHABLE)
    del away.networks[network_id], away.names_elsewhere[network_id]
    away.new_journal()
    await away.up()
    await away.until(lambda: peers(away, network_id) == {("10.90.0.2", "10.64.1.0/24")})
    await away.until(lambda: set(elsewhere(away, network_id)) == {"there"})


async def test_a_node_that_is_reached_by_another_address_is_told_to_all(cluster: Api, executors: Fakes) -> None:
    network_id, moved = await make(cluster), executors["a"]
    await run_on(cluster, "a", "here")
    await run_on(cluster, "b", "there")
    await moved.down()
    await cluster.node_in("a", node_service_pb2.NODE_STATE_UNREACHABLE)
    moved.overlay_address = "10.90.0.61"
    await moved.up()
    other = executors["b"]
    await other.until(lambda: peers(other, network_id) == {("10.90.0.61", "10.64.0.0/24")})
    assert (await inspect(cluster)).overlay.slices["a"].address == "10.90.0.61"


async def test_names_from_a_store_at_other_numbers_are_told_anew(cluster: Api, executors: Fakes) -> None:
    network_id, here = await make(cluster), executors["a"]
    await run_on(cluster, "a", "here")
    here.names_elsewhere[network_id] = node_pb2.SetNamesElsewhereRequest(network_id=network_id, version=1 << 40)
    await run_on(cluster, "b", "there")
    await here.until(lambda: set(elsewhere(here, network_id)) == {"there"})
    assert here.names_elsewhere[network_id].renumbered


async def test_what_fails_to_be_told_is_told_again(cluster: Api, executors: Fakes) -> None:
    network_id, here = await make(cluster), executors["a"]
    await run_on(cluster, "a", "here")
    here.fault("SetOverlayPeers", error=FailedPrecondition("not now"))
    here.fault("SetNamesElsewhere", error=FailedPrecondition("not now"))
    await run_on(cluster, "b", "there")
    await here.until(lambda: set(elsewhere(here, network_id)) == {"there"})
    assert peers(here, network_id) == {("10.90.0.2", "10.64.1.0/24")}


async def test_a_network_that_a_node_refuses_to_hear_of_keeps_no_other(
    cluster: Api, executors: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted([await make(cluster, "wide"), await make(cluster, "broad")])
    here, node = executors["a"], cluster.engine.nodes.get("a")
    names = {(await inspect(cluster, one)).id: (await inspect(cluster, one)).name for one in (first, second)}
    for network_id in (first, second):
        await run_on(cluster, "a", f"here-{network_id[:4]}", network=names[network_id])
    tell = node.executor.networks.set_overlay_peers
    again = 3600.0  # seconds until the other one is tried again
    monkeypatch.setattr("api_service.overlays.teller._FIRST_RETRY", again)

    async def refuse(network_id: str, *of: Any, **more: Any) -> None:
        if network_id == first:
            raise FailedPrecondition("not this one")
        await tell(network_id, *of, **more)

    monkeypatch.setattr(node.executor.networks, "set_overlay_peers", refuse)
    for network_id in (first, second):
        await run_on(cluster, "b", f"there-{network_id[:4]}", network=names[network_id])
    await here.until(lambda: len(peers(here, second)) == 1)
    await run_on(cluster, "c", "other", network=names[second])
    await here.until(lambda: len(peers(here, second)) == 2)
    monkeypatch.undo()
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + again)
    monkeypatch.setattr("api_service.overlays.teller.time", later)

    async def change_all_the_time() -> None:
        while True:
            for interest in cluster.engine.overlays._interests:
                interest.add(second)
            await asyncio.sleep(0.01)

    changing = asyncio.create_task(change_all_the_time())
    await here.until(lambda: len(peers(here, first)) == 1)
    changing.cancel()
    await asyncio.wait([changing])


@pytest.mark.parametrize("said", ["10.64.0.3", "nowhere"])
async def test_a_node_has_no_say_in_addresses_that_are_not_its_own(cluster: Api, executors: Fakes, said: str) -> None:
    network_id, here = await make(cluster), executors["a"]
    await run_on(cluster, "a", "here")
    liar = await run_on(cluster, "b", "liar")
    await here.until(lambda: set(elsewhere(here, network_id)) == {"liar"})

    def lie(found: ContainerRecord) -> Changed:
        endpoints = tuple(dataclasses.replace(one, ip_address=said) for one in found.network.endpoints)
        return Changed(
            record=dataclasses.replace(found, network=dataclasses.replace(found.network, endpoints=endpoints))
        )

    await cluster.engine.containers.update(liar, lie)
    await run_on(cluster, "b", "there")
    await here.until(lambda: "there" in elsewhere(here, network_id))
    told = {one.names[0]: list(one.addresses) for one in here.names_elsewhere[network_id].containers}
    assert said not in told["liar"]
    assert told["there"]


async def test_a_create_on_the_node_that_fails_is_made_good_by_the_next(cluster: Api, executors: Fakes) -> None:
    network_id = await make(cluster)
    executors["a"].fault("CreateNetwork", error=FailedPrecondition("no interface has the address"))
    refusal = await refused(create_on(cluster, "a", "one"))
    assert "no interface has the address" in refusal.message
    await run_on(cluster, "a", "one")
    assert executors["a"].networks[network_id].ipv4.subnet == "10.64.0.0/24"


async def test_removal_takes_it_from_every_node_also_from_one_that_is_away(cluster: Api, executors: Fakes) -> None:
    network_id = await make(cluster)
    for node in ("a", "b"):
        await run_on(cluster, node, f"on-{node}")
    in_use = await refused(cluster.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="wide")))
    assert in_use.reason == "NETWORK_IN_USE"
    assert all(name in in_use.message for name in ("on-a", "on-b"))
    for node in ("a", "b"):
        await cluster.remove(f"on-{node}", force=True)
    executors["b"].fault("RemoveNetwork", error=FailedPrecondition("in use by a sandbox"))
    refusal = await refused(cluster.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="wide")))
    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    # It is ready again, and what was taken from a node is there again before a container is.
    await run_on(cluster, "a", "again")
    assert network_id in executors["a"].networks
    await cluster.remove("again", force=True)
    await executors["b"].down()
    await cluster.node_in("b", node_service_pb2.NODE_STATE_UNREACHABLE)
    await cluster.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="wide"))
    assert network_id not in executors["a"].networks
    await executors["b"].up()
    await executors["b"].until(lambda: network_id not in executors["b"].networks)
    # Its name, VNI and subnets are free.
    await make(cluster)
    assert (await inspect(cluster)).ipam.config[0].subnet == "10.64.0.0/18"


async def test_a_removed_node_is_nobodys_peer_and_its_slice_is_given_to_another(cluster: Api, executors: Fakes) -> None:
    network_id, here = await make(cluster), executors["a"]
    await run_on(cluster, "a", "here")
    there = await run_on(cluster, "b", "there")
    await here.until(lambda: peers(here, network_id) == {("10.90.0.2", "10.64.1.0/24")})
    await cluster.remove(there, force=True)
    await cluster.nodes.RemoveNode(node_service_pb2.RemoveNodeRequest(node="b"), timeout=PATIENCE)
    await here.until(lambda: peers(here, network_id) == set())
    await run_on(cluster, "c", "heir")
    await here.until(lambda: peers(here, network_id) == {("10.90.0.3", "10.64.1.0/24")})


async def test_a_container_that_moves_is_known_where_it_is(tmp_path: Path, executors: Fakes) -> None:
    terms = LeaseTerms(ttl=3.0, margin=1.0)
    async with running_api(tmp_path, executors["a"], configured=False, lease=terms) as api:
        await api.add_nodes(executors)
        await api.load()
        network_id, here = await make(api), executors["a"]
        await run_on(api, "a", "here")
        request = container_service.CreateContainerRequest(
            name="moves",
            config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
            host_config=container_pb2.HostConfig(
                network_mode="wide", placement=on("b", "c"), reschedule="on_node_loss"
            ),
        )
        await available(api, "c", node_service_pb2.NODE_AVAILABILITY_CORDONED)
        moves = (await api.containers.CreateContainer(request)).id
        await api.start(moves)
        await here.until(lambda: elsewhere(here, network_id) == {"moves": ["10.64.1.2"]})
        await available(api, "c", node_service_pb2.NODE_AVAILABILITY_ACTIVE)
        await executors["b"].down()
        await here.until(lambda: elsewhere(here, network_id) == {"moves": ["10.64.2.2"]})
        assert peers(here, network_id) == {("10.90.0.2", "10.64.1.0/24"), ("10.90.0.3", "10.64.2.0/24")}


async def test_any_replica_is_asked_and_one_of_them_tells_the_nodes(shared: SharedStore, executors: Fakes) -> None:
    here = executors["a"]
    one, two = [await shared.join(name, here, configured=False) for name in ("one", "two")]
    for name in ("a", "b"):
        await one.add_node(name, executors[name].address)
        await two.node_in(name, node_service_pb2.NODE_STATE_READY)
    await two.load()
    network_id = await make(one)
    await run_on(two, "a", "here")
    there = await run_on(one, "b", "there")
    await here.until(lambda: elsewhere(here, network_id) == {"there": ["10.64.1.2"]})
    assert peers(here, network_id) == {("10.90.0.2", "10.64.1.0/24")}
    # Whichever of them has told the nodes so far goes, and the other does.
    await shared.leave("one")
    executors["b"].exit(there)
    await here.until(lambda: elsewhere(here, network_id) == {})
    await two.start("there")
    await here.until(lambda: set(elsewhere(here, network_id)) == {"there"})


async def available(api: Api, node: str, availability: node_service_pb2.NodeAvailability.ValueType) -> None:
    await api.nodes.UpdateNode(node_service_pb2.UpdateNodeRequest(node=node, availability=availability))


async def test_what_cannot_be_is_refused_with_the_way_out(cluster: Api, executors: Fakes) -> None:
    config = pb2.IpamConfig(subnet="10.9.0.0/24", gateway="10.9.0.1", ip_range="10.9.0.0/25")
    refusal = await refused(
        make(
            cluster,
            ipam=pb2.Ipam(config=[config]),
            bridge=pb2.BridgeOptions(),
            overlay=pb2.OverlayOptions(slice_prefix_ipv4=31),
        )
    )
    assert set(refusal.violations) == {
        "bridge",
        "ipam.config[0].gateway",
        "ipam.config[0].ip_range",
        "overlay.slice_prefix_ipv4",
    }
    refusal = await refused(
        cluster.networks.CreateNetwork(pb2.CreateNetworkRequest(name="b", overlay=pb2.OverlayOptions(mtu=9000)))
    )
    assert refusal.violations == {"overlay": "is for the driver 'overlay'; leave it out, or ask for that driver"}
    small = pb2.Ipam(config=[pb2.IpamConfig(subnet="10.9.0.0/24")])
    await make(cluster, "small", enable_ipv6=False, ipam=small, overlay=pb2.OverlayOptions(slice_prefix_ipv4=25))
    assert (await refused(make(cluster, "small"))).reason == "NETWORK_NAME_IN_USE"
    overlapping = pb2.Ipam(config=[pb2.IpamConfig(subnet="10.9.0.128/25")])
    refusal = await refused(make(cluster, "other", ipam=overlapping))
    assert (refusal.reason, "overlaps 10.9.0.0/24 of network 'small'" in refusal.message) == ("SUBNET_OVERLAPS", True)
    for node in ("a", "b"):
        await create_on(cluster, node, f"on-{node}", "small")
    refusal = await refused(create_on(cluster, "c", "on-c", "small"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLICES_EXHAUSTED")

    await make(cluster)
    for address, told in (("", "give its executor an overlay_address"), ("fd00::3", "of one family")):
        executors["c"].overlay_address = address
        cluster.engine.nodes.get("c").forget_facts()
        refusal = await refused(create_on(cluster, "c", "on-c"))
        assert (refusal.reason, told in refusal.message) == ("UNDERLAY_UNAVAILABLE", True)
        await create_on(cluster, "a", f"first{len(address)}")
    connect = pb2.ConnectContainerRequest(
        network="wide", container="on-b", endpoint=container_pb2.EndpointSettings(ipv4_address="10.64.0.9")
    )
    refusal = await refused(cluster.networks.ConnectContainer(connect))
    assert "is chosen with its first container; leave it empty" in refusal.violations["endpoint.ipv4_address"]
