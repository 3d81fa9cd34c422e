"""NetworkService over a fake executor: records, names, refusals, events, and what interrupted calls leave."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import network_store_service_pb2 as node_pb2
from slipway.v1 import container_pb2, system_service_pb2
from slipway.v1 import container_service_pb2 as container_service
from slipway.v1 import network_service_pb2 as pb2

from api_service.operations.network_sweep import sweep_networks
from api_service.store.store import Delete, Put
from common.errors import ResourceExhausted, Unavailable
from tests.fixtures.api import Api, refused


async def make(api: Api, name: str, **fields: Any) -> str:
    return (await api.networks.CreateNetwork(pb2.CreateNetworkRequest(name=name, **fields))).id


async def inspect(api: Api, network: str) -> pb2.Network:
    return (await api.networks.InspectNetwork(pb2.InspectNetworkRequest(network=network))).network


async def names(api: Api, **wanted: Any) -> list[str]:
    answer = await api.networks.ListNetworks(pb2.ListNetworksRequest(**wanted))
    return [network.name for network in answer.networks]


async def connect(api: Api, network: str, container: str, **endpoint: Any) -> None:
    settings = container_pb2.EndpointSettings(**endpoint)
    await api.networks.ConnectContainer(
        pb2.ConnectContainerRequest(network=network, container=container, endpoint=settings)
    )


async def disconnect(api: Api, network: str, container: str) -> None:
    await api.networks.DisconnectContainer(pb2.DisconnectContainerRequest(network=network, container=container))


async def endpoints(api: Api, container: str) -> dict[str, container_pb2.EndpointSettings]:
    return dict((await api.inspect(container)).network_settings.networks)


async def create_on(api: Api, mode: str, *more: str, name: str = "", **settings: Any) -> str:
    request = container_service.CreateContainerRequest(
        name=name,
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
        host_config=container_pb2.HostConfig(network_mode=mode),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={network: container_pb2.EndpointSettings(**settings) for network in more}
        ),
    )
    return (await api.containers.CreateContainer(request)).id


async def network_events(api: Api) -> list[tuple[str, str, str]]:
    request = system_service_pb2.StreamEventsRequest(type=["network"])
    request.since.FromNanoseconds(1)
    request.until.GetCurrentTime()
    return [
        (answer.event.action, answer.event.attributes["name"], answer.event.attributes["container"][:4])
        async for answer in api.system.StreamEvents(request)
    ]


async def test_a_network_from_create_to_remove(api: Api) -> None:
    ipam = pb2.Ipam(
        config=[pb2.IpamConfig(subnet="10.77.0.0/24", gateway="10.77.0.9", aux_addresses={"x": "10.77.0.7"})]
    )
    network_id = await make(api, "back", ipam=ipam, internal=True, labels={"tier": "1"})
    spec = api.executor.networks[network_id]
    assert (spec.name, spec.ipv4.subnet, spec.ipv4.gateway, list(spec.ipv4.reserved), spec.internal) == (
        "back",
        "10.77.0.0/24",
        "10.77.0.9",
        ["10.77.0.7"],
        True,
    )
    shown = await inspect(api, "back")
    assert shown == await inspect(api, network_id) == await inspect(api, network_id[:10])
    assert (shown.id, shown.driver, shown.internal, dict(shown.labels)) == (network_id, "bridge", True, {"tier": "1"})
    assert [config.subnet for config in shown.ipam.config] == ["10.77.0.0/24", "fd00:0:0:1::/64"]
    assert shown.ipam.config[0].aux_addresses["x"] == "10.77.0.7"
    assert shown.bridge.name == f"br-{network_id[:12]}"
    assert await names(api) == ["back", "bridge", "host", "none"]
    assert await names(api, label=["tier=1"]) == ["back"]
    assert await names(api, dangling=True) == ["back"]

    taken = await refused(api.networks.CreateNetwork(pb2.CreateNetworkRequest(name="back")))
    assert (taken.code, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NETWORK_NAME_IN_USE")

    await api.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="back"))
    assert list(api.executor.networks) == ["bridge"]
    gone = await refused(api.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="back")))
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "NETWORK_NOT_FOUND")
    assert await network_events(api) == [("create", "back", ""), ("destroy", "back", "")]


async def test_a_macvlan_network_and_the_ports_that_it_does_not_publish(api: Api) -> None:
    options = pb2.MacvlanOptions(parent="eth0", mode=pb2.MACVLAN_MODE_VEPA)
    ipam = pb2.Ipam(config=[pb2.IpamConfig(subnet="10.77.0.0/24")])
    network_id = await make(api, "lan", driver="macvlan", macvlan=options, ipam=ipam)
    spec = api.executor.networks[network_id]
    assert spec.macvlan == node_pb2.MacvlanLink(parent="eth0", mode=node_pb2.MACVLAN_MODE_VEPA)
    assert not spec.HasField("ipv6")
    shown = await inspect(api, "lan")
    assert (shown.driver, shown.macvlan, shown.HasField("bridge")) == ("macvlan", options, False)
    assert await names(api, driver=["macvlan"]) == ["lan"]
    told = "has no effect on macvlan networks"
    assert told in await port_warnings(api, "lan")
    assert told not in await port_warnings(api, "lan", "bridge")


async def port_warnings(api: Api, network: str, *more: str) -> str:
    """What is said to a container on these networks that publishes a port."""
    bindings = container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_port="8080")])
    request = container_service.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
        host_config=container_pb2.HostConfig(network_mode=network, port_bindings={"80/tcp": bindings}),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={each: container_pb2.EndpointSettings() for each in more}
        ),
    )
    return "\n".join((await api.containers.CreateContainer(request)).warnings)


async def test_ports_on_internal_networks_alone_are_warned_of(api: Api) -> None:
    await make(api, "back", internal=True)
    await make(api, "deep", internal=True)
    await make(api, "front")
    told = "has no effect on internal networks"
    assert told in await port_warnings(api, "back", "deep")
    assert told not in await port_warnings(api, "back", "front")


async def test_attachments_are_told_with_the_driver_and_modes_as_docker_shows_them(api: Api) -> None:
    ipam = pb2.Ipam(config=[pb2.IpamConfig(subnet="10.77.0.0/24")])
    await make(api, "lan", driver="macvlan", macvlan=pb2.MacvlanOptions(parent="eth0"), ipam=ipam)
    drivers = {"lan": "macvlan", "bridge": "bridge", "host": "host", "none": "null"}
    for mode in drivers:
        container = await create_on(api, mode)
        await api.start(container)
        await api.stop(container)
    told = [
        (event.action, event.attributes["name"], event.attributes["type"])
        for event in [answer.event for answer in await api.events(9, type=["network"])]
        if event.attributes["container"]
    ]
    assert told == [(action, mode, driver) for mode, driver in drivers.items() for action in ("connect", "disconnect")]


async def test_the_modes_without_networks_show_who_runs_in_them(api: Api) -> None:
    for mode in ("host", "none"):
        container = await create_on(api, mode, name=f"in-{mode}")
        assert not (await inspect(api, mode)).containers
        await api.containers.StartContainer(container_service.StartContainerRequest(container=container))
        shown = (await inspect(api, mode)).containers
        assert {key: one.name for key, one in shown.items()} == {container: f"in-{mode}"}
    assert not (await inspect(api, "bridge")).containers


async def test_a_create_warns_of_what_has_no_effect(api: Api) -> None:
    bridge = pb2.BridgeOptions(host_binding_ipv4="127.0.0.1")
    answer = await api.networks.CreateNetwork(pb2.CreateNetworkRequest(name="back", internal=True, bridge=bridge))
    assert list(answer.warnings) == [
        "bridge.host_binding_ipv4 has no effect: no port of an internal network is published."
    ]


async def test_one_network_by_three_names_is_refused(api: Api) -> None:
    network_id = await make(api, "back")
    caught = await refused(create_on(api, network_id, "back", network_id[:20]))
    assert caught.code is grpc.StatusCode.INVALID_ARGUMENT
    (field,) = caught.violations
    assert field.startswith("networking_config.endpoints_config[")


async def test_those_that_are_always_there(api: Api) -> None:
    bridge = await inspect(api, "bridge")
    assert (bridge.id, bridge.driver, bridge.ipam.config[0].subnet) == ("bridge", "bridge", "172.17.0.0/16")
    assert (await inspect(api, "none")).driver == "null"
    refusal = await refused(api.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="bridge")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NETWORK_PREDEFINED")
    made = await refused(api.networks.CreateNetwork(pb2.CreateNetworkRequest(name="host")))
    assert (made.code, list(made.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["name"])


async def test_what_the_node_refuses_leaves_no_name(api: Api) -> None:
    api.executor.fault("CreateNetwork", error=ResourceExhausted("no /24 is free", reason="SUBNETS_EXHAUSTED"))
    refusal = await refused(api.networks.CreateNetwork(pb2.CreateNetworkRequest(name="back")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBNETS_EXHAUSTED")
    assert await names(api) == ["bridge", "host", "none"]
    assert await make(api, "back")


async def test_a_container_on_several_networks(api: Api) -> None:
    await api.load()
    front, back = await make(api, "front"), await make(api, "back")
    web = await create_on(api, "front", back[:12], "bridge", name="web")
    spec = api.executor.containers[web].spec
    assert [endpoint.network_id for endpoint in spec.endpoints] == [front, back, "bridge"]
    assert list(spec.endpoints[0].dns_names) == ["web", web[:12]]
    assert not spec.endpoints[2].dns_names
    await api.start("web")
    found = await endpoints(api, "web")
    assert {name: settings.network_id for name, settings in found.items()} == {
        "front": front,
        "back": back,
        "bridge": "bridge",
    }
    assert (await api.inspect("web")).host_config.network_mode == "front"
    used = await refused(api.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="back")))
    assert (used.code, used.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NETWORK_IN_USE")
    assert "web" in used.message


async def test_networks_that_are_not_there_and_addresses_they_do_not_have(api: Api) -> None:
    await api.load()
    await make(api, "front")
    await make(api, "fixed", ipam=pb2.Ipam(config=[pb2.IpamConfig(subnet="10.77.0.0/24", gateway="10.77.0.1")]))
    unknown = await refused(create_on(api, "nowhere"))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "NETWORK_NOT_FOUND")
    chosen = await refused(create_on(api, "front", "front", ipv4_address="10.200.1.9"))
    assert list(chosen.violations) == ['networking_config.endpoints_config["front"].ipv4_address']
    for bad in ("10.78.0.9", "10.77.0.1", "10.77.0.0", "10.77.0.255"):
        outside = await refused(create_on(api, "fixed", "fixed", ipv4_address=bad))
        assert list(outside.violations) == ['networking_config.endpoints_config["fixed"].ipv4_address'], bad
    assert await create_on(api, "fixed", "fixed", ipv4_address="10.77.0.9", aliases=["db"])
    assert await api.names() != []


async def test_connect_and_disconnect(api: Api) -> None:
    await api.load()
    front = await make(api, "front")
    web = await api.run(name="web")
    await connect(api, "front", "web", aliases=["www"], gw_priority=7)
    spec = api.executor.containers[web].spec.endpoints[1]
    assert (spec.network_id, list(spec.dns_names), spec.gateway_priority) == (front, ["web", "www", web[:12]], 7)
    settings = (await endpoints(api, "web"))["front"]
    assert (settings.network_id, list(settings.aliases), settings.gw_priority) == (front, ["www"], 7)
    assert settings.ip_address
    assert [one.name for one in (await inspect(api, "front")).containers.values()] == ["web"]

    twice = await refused(connect(api, "front", "web"))
    assert (twice.code, twice.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_CONNECTED")
    await api.containers.RenameContainer(container_service.RenameContainerRequest(container="web", new_name="site"))
    spec = api.executor.containers[web].spec.endpoints[1]
    assert list(spec.dns_names) == ["site", "www", web[:12]]
    assert list((await endpoints(api, "site"))["front"].aliases) == ["www"]

    await disconnect(api, "front", "site")
    again = await refused(disconnect(api, "front", "site"))
    assert (again.code, again.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_CONNECTED")
    assert set(await endpoints(api, "site")) == {"bridge"}
    await disconnect(api, "bridge", "site")
    assert await endpoints(api, "site") == {}
    await api.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="front"))
    assert [event for event in await network_events(api) if event[2]] == [
        ("connect", "bridge", web[:4]),
        ("connect", "front", web[:4]),
        ("disconnect", "front", web[:4]),
        ("disconnect", "bridge", web[:4]),
    ]


async def test_a_rename_while_the_node_is_away_is_told_when_it_is_back(api: Api) -> None:
    await api.load()
    await make(api, "front")
    web = await create_on(api, "front", name="web")
    await api.executor.down()
    await api.containers.RenameContainer(container_service.RenameContainerRequest(container="web", new_name="site"))
    assert (await api.inspect("site")).id == web
    await api.executor.up()
    await api.executor.until(lambda: api.executor.containers[web].spec.endpoints[0].dns_names[0] == "site")
    assert not (await endpoints(api, "site"))["front"].aliases


async def test_modes_without_networks_cannot_be_connected(api: Api) -> None:
    await api.load()
    await make(api, "front")
    for mode in ("host", "none"):
        container = await api.create(network_mode=mode)
        refusal = await refused(connect(api, "front", container))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NETWORK_MODE_CONFLICT")
    plain = await api.create()
    refusal = await refused(connect(api, "none", plain))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NETWORK_MODE_CONFLICT")


async def test_sharing_the_network_of_another_container(api: Api) -> None:
    await api.load()
    owner = await api.create(name="owner")
    assert (await api.inspect("owner")).config.hostname == owner[:12]
    sidecar = await api.create(name="sidecar", network_mode="container:owner")
    spec = api.executor.containers[sidecar].spec
    assert (spec.network_container, list(spec.endpoints)) == (owner, [])
    shown = await api.inspect("sidecar")
    assert (shown.host_config.network_mode, shown.config.hostname) == (f"container:{owner}", owner[:12])
    further = await refused(api.create(network_mode="container:sidecar"))
    assert (further.code, further.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NETWORK_NOT_SHAREABLE")
    itself = await refused(api.create(name="me", network_mode="container:me"))
    assert list(itself.violations) == ["host_config.network_mode"]


async def test_the_default_network_by_its_other_name_and_a_mac_in_capitals(api: Api) -> None:
    await api.load()
    plain = await create_on(api, "default", "default", mac_address="02:42:AC:11:00:0A")
    [endpoint] = api.executor.containers[plain].spec.endpoints
    assert (endpoint.network_id, endpoint.mac_address) == ("bridge", "02:42:ac:11:00:0a")


async def test_a_node_that_hangs_keeps_nobody_from_seeing_the_networks(api: Api) -> None:
    gate = asyncio.Event()
    for _ in range(2):
        api.executor.fault("ListNetworks", gate=gate)
    assert await names(api) == ["bridge", "host", "none"]
    assert not (await inspect(api, "bridge")).ipam.config
    gate.set()


async def test_prune_takes_those_without_containers(api: Api) -> None:
    await api.load()
    for name in ("one", "two", "three"):
        await make(api, name, labels={"keep": "1"} if name == "three" else {})
    await create_on(api, "one")
    no_time = Timestamp(seconds=1 << 60)
    refusal = await refused(api.networks.PruneNetworks(pb2.PruneNetworksRequest(until=no_time)))
    assert refusal.violations.keys() == {"until"}
    pruned = await api.networks.PruneNetworks(pb2.PruneNetworksRequest(label=["!keep"]))
    assert list(pruned.networks) == ["two"]
    assert await names(api) == ["bridge", "host", "none", "one", "three"]


async def test_a_create_that_the_node_never_answered_leaves_no_name_and_nothing_there(api: Api) -> None:
    api.executor.fault("CreateNetwork", lost=True)
    api.executor.fault("RemoveNetwork", error=Unavailable("away", retry_after=1.0))
    lost = await refused(api.networks.CreateNetwork(pb2.CreateNetworkRequest(name="back")))
    assert lost.code == grpc.StatusCode.UNAVAILABLE
    assert len(api.executor.networks) == 2
    await api.executor.down()
    await api.executor.up()
    await api.executor.until(lambda: list(api.executor.networks) == ["bridge"])
    assert await make(api, "back")


async def test_a_removal_that_was_cut_off_is_finished_and_a_lost_network_made_again(api: Api) -> None:
    kept, going = await make(api, "kept"), await make(api, "going")
    await api.executor.down()
    cut = await refused(api.networks.RemoveNetwork(pb2.RemoveNetworkRequest(network="going")))
    assert cut.code == grpc.StatusCode.UNAVAILABLE
    del api.executor.networks[kept]
    await api.executor.up()
    await api.executor.until(lambda: going not in api.executor.networks and kept in api.executor.networks)
    assert api.executor.networks[kept].ipv4.subnet == "10.200.1.0/24"


async def test_a_network_whose_record_cannot_be_read_stays_on_its_node(api: Api) -> None:
    unreadable, forgotten = await make(api, "unreadable"), await make(api, "forgotten")
    store = api.engine.networks._store
    await store.commit(Put(key=f"networks/{unreadable}", value=b"junk"), Delete(key=f"networks/{forgotten}"))
    await sweep_networks(api.engine, api.engine.nodes.get("local"))
    assert unreadable in api.executor.networks
    assert forgotten not in api.executor.networks


async def test_what_does_not_run_is_connected_on_record_and_told_when_it_is_attached(api: Api) -> None:
    await api.load()
    await make(api, "back")
    stopped = await api.create()
    await connect(api, "back", stopped)
    assert "back" in await endpoints(api, stopped)
    await disconnect(api, "back", stopped)
    assert await network_events(api) == [("create", "back", "")]


async def test_a_network_that_is_not_there_is_told_with_its_field_and_those_that_are(api: Api) -> None:
    await api.load()
    await make(api, "back")
    mode = await refused(create_on(api, "bakc"))
    further = await refused(create_on(api, "back", "frnt"))
    for refusal, field in ((mode, "host_config.network_mode"), (further, 'endpoints_config["frnt"]')):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NETWORK_NOT_FOUND")
        assert field in refusal.message
        assert "there are bridge, back" in refusal.message
