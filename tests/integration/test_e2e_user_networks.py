"""User-defined networks through the public API on the real kernel: who reaches whom, and what stays when things end."""

from __future__ import annotations

import os
import signal
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb
from slipway.v1 import system_service_pb2 as system_pb

from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def make(engine: Slipway, name: str, **fields: Any) -> str:
    request = network_pb.CreateNetworkRequest(name=name, **fields)
    return (await engine.networks.CreateNetwork(request, timeout=60)).id


async def remove(engine: Slipway, *networks: str) -> None:
    for network in networks:
        await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network=network), timeout=60)


async def connect(engine: Slipway, network: str, container: str, **settings: Any) -> None:
    endpoint = container_pb2.EndpointSettings(**settings)
    request = network_pb.ConnectContainerRequest(network=network, container=container, endpoint=endpoint)
    await engine.networks.ConnectContainer(request, timeout=60)


async def disconnect(engine: Slipway, network: str, container: str) -> None:
    request = network_pb.DisconnectContainerRequest(network=network, container=container)
    await engine.networks.DisconnectContainer(request, timeout=60)


async def endpoint(engine: Slipway, container: str, network: str) -> container_pb2.EndpointSettings:
    return (await engine.inspect(container)).network_settings.networks[network]


async def reaches(engine: Slipway, mode: str, address: str, *, tries: int = 5) -> bool:
    script = f"for i in $(seq {tries}); do ping -c 1 -W 1 {address} >/dev/null && echo yes && exit; done; echo no"
    return await engine.output("sh", "-c", script, network_mode=mode) == "yes\n"


async def blocked(engine: Slipway, mode: str, address: str) -> bool:
    return not await reaches(engine, mode, address, tries=1)


async def test_containers_of_a_network_reach_each_other_and_nobody_else(engine: Slipway) -> None:
    await make(engine, "front")
    await make(engine, "back", internal=True)
    web = await engine.run("sleep", "300", network_mode="front")
    settings = await endpoint(engine, web, "front")
    assert settings.ip_address.startswith("10.200.")

    for address in (settings.ip_address, settings.global_ipv6_address):
        assert await reaches(engine, "front", address)
        assert await blocked(engine, "back", address)
        assert await blocked(engine, "bridge", address)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await remove(engine, "front")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    await engine.remove(web)
    await remove(engine, "front", "back")


async def test_fixed_addresses_and_the_gateway_of_choice(engine: Slipway) -> None:
    ipam = network_pb.Ipam(config=[network_pb.IpamConfig(subnet="10.66.0.0/24", gateway="10.66.0.254")])
    await make(engine, "fixed", ipam=ipam, enable_ipv6=False)
    await make(engine, "other")
    request = pb.CreateContainerRequest(
        name="chosen",
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sh", "-c", "ip -o -4 a; ip r; cat /etc/hosts"]),
        host_config=container_pb2.HostConfig(network_mode="other"),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={
                "fixed": container_pb2.EndpointSettings(
                    ipv4_address="10.66.0.7", mac_address="02:00:00:00:00:07", gw_priority=1
                )
            }
        ),
    )
    await engine.containers.CreateContainer(request, timeout=60)
    await engine.start("chosen")
    await engine.wait("chosen")
    said = (await engine.logs("chosen")).decode()
    assert "eth1    inet 10.66.0.7/24" in said
    assert "default via 10.66.0.254 dev eth1" in said
    assert "10.66.0.7\t" in said
    await engine.remove("chosen")
    await remove(engine, "fixed", "other")


async def test_connecting_what_runs_and_what_a_killed_executor_finds_again(engine: Slipway) -> None:
    await make(engine, "front")
    peer = await engine.run("sleep", "300", network_mode="front")
    web = await engine.run("sh", "-c", "while true; do ip -o -4 a; sleep 0.1; done", name="web")
    address = (await endpoint(engine, peer, "front")).ip_address

    await connect(engine, "front", "web")
    own = (await endpoint(engine, "web", "front")).ip_address
    assert own
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    assert (await endpoint(engine, "web", "front")).ip_address == own
    assert await reaches(engine, "front", own)
    assert await reaches(engine, f"container:{web}", address)

    await disconnect(engine, "front", "web")
    assert await blocked(engine, f"container:{web}", address)
    assert "front" not in (await engine.inspect("web")).network_settings.networks
    # What was changed holds for the next start, too.
    await disconnect(engine, "bridge", "web")
    await connect(engine, "front", "web")
    await engine.kill("web")
    await engine.wait("web")
    await engine.start("web")
    assert set((await engine.inspect("web")).network_settings.networks) == {"front"}
    assert await reaches(engine, f"container:{web}", address)
    for container in (web, peer):
        await engine.remove(container)
    await remove(engine, "front")


async def restarted(engine: Slipway, container: str, *, since: container_pb2.Container) -> container_pb2.Container:
    """The container when it runs with another process than then; each event is a reason to look again."""
    call = engine.system.StreamEvents(system_pb.StreamEventsRequest(since=Timestamp(seconds=1)), timeout=60)
    async for _ in call:
        found = await engine.inspect(container)
        if found.state.pid not in {0, since.state.pid}:
            call.cancel()
            return found
    raise AssertionError(await engine.inspect(container))


def identity(container: container_pb2.Container) -> set[tuple[str, str, str, str]]:
    """What neighbours know it by, on each network."""
    return {
        (name, settings.ip_address, settings.global_ipv6_address, settings.mac_address)
        for name, settings in container.network_settings.networks.items()
    }


async def test_who_restarts_is_who_it_was_by_whatever_way(engine: Slipway) -> None:
    await make(engine, "front")
    policy = container_pb2.RestartPolicy(name="always")
    for mode in ("front", "bridge"):
        web = await engine.run("sleep", "300", network_mode=mode, restart_policy=policy, publish_all_ports=True,
                               config={"exposed_ports": ["80/tcp"]})  # fmt: skip
        if mode == "bridge":
            await connect(engine, "front", web)
        first = await engine.inspect(web)
        assert first.network_settings.ports["80/tcp"].bindings

        os.kill(first.state.pid, signal.SIGKILL)  # its policy starts it again
        by_policy = await restarted(engine, web, since=first)
        neighbour = await engine.run("sleep", "300", network_mode=mode)  # takes no address that rests
        await engine.containers.RestartContainer(pb.RestartContainerRequest(container=web, timeout=0), timeout=60)
        by_client = await engine.inspect(web)
        await engine.kill(web)
        await engine.wait(web)
        await engine.executor.kill()
        await engine.executor.start()
        await engine.node_back()
        await engine.start(web)
        by_hand = await engine.inspect(web)

        for later in (by_policy, by_client, by_hand):
            assert identity(later) == identity(first)
            assert later.network_settings.ports == first.network_settings.ports
            assert later.network_settings.sandbox_key != first.network_settings.sandbox_key, "nothing of the run before"
        assert await reaches(engine, "front", by_hand.network_settings.networks["front"].ip_address)
        for container in (web, neighbour):
            await engine.remove(container)
    await remove(engine, "front")


async def test_a_sidecar_keeps_the_network_while_its_owner_restarts(engine: Slipway) -> None:
    await make(engine, "front")
    policy = container_pb2.RestartPolicy(name="always")
    owner = await engine.run("sleep", "300", name="owner", network_mode="front", restart_policy=policy)
    before = await endpoint(engine, "owner", "front")
    sidecar = await engine.run("sleep", "300", name="sidecar", network_mode="container:owner")
    assert (await engine.inspect("sidecar")).network_settings.sandbox_id == owner

    first = await engine.inspect("owner")

    os.kill(first.state.pid, signal.SIGKILL)
    by_policy = await restarted(engine, "owner", since=first)
    await engine.containers.RestartContainer(pb.RestartContainerRequest(container="owner", timeout=0), timeout=60)
    by_client = await engine.inspect("owner")
    await engine.kill("owner")
    await engine.wait("owner")
    assert await reaches(engine, "front", before.ip_address)
    await engine.start("owner")
    for later in (by_policy, by_client, await engine.inspect("owner")):
        assert identity(later) == identity(first)
        assert later.network_settings.sandbox_key == first.network_settings.sandbox_key
    said = await engine.output("sh", "-c", "ip -o -4 a; cat /etc/hosts", network_mode="container:owner")
    assert said.count(before.ip_address) >= 2
    for container in (sidecar, owner):
        await engine.remove(container)
    await remove(engine, "front")


async def test_ports_on_an_internal_network_wait_for_a_way_out(engine: Slipway) -> None:
    await make(engine, "back", internal=True)
    ports = {"80/tcp": container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_port="18080")])}
    web = await engine.run("sleep", "300", network_mode="back", port_bindings=ports)
    assert not (await engine.inspect(web)).network_settings.ports
    await connect(engine, "bridge", web)
    bindings = (await engine.inspect(web)).network_settings.ports["80/tcp"].bindings
    assert {one.host_port for one in bindings} == {"18080"}
    await engine.remove(web)
    await remove(engine, "back")
