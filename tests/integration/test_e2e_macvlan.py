"""Macvlan networks through both services: asked and shown from inside the container and from a machine of the link."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb

from tests.fixtures.lan import HOST_IPV4, MACHINE_IPV4, PARENT, lan_machine
from tests.fixtures.netns import Namespace
from tests.fixtures.slipway import Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ASK = """
nslookup web
printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30 {address} 80
ping -c1 -W1 {host} || echo apart
"""
_SERVE = "echo hello > /tmp/index.html; httpd -f -p 80 -h /tmp"


@pytest.fixture(scope="module")
def machine() -> Iterator[Namespace]:
    with lan_machine() as other:
        yield other


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(machine: Namespace, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    async with installed(tmp_path_factory.mktemp("services")) as engine:
        yield engine


async def make(engine: Slipway, name: str, parent: str = PARENT) -> network_pb.CreateNetworkResponse:
    ipam = network_pb.IpamConfig(subnet="10.88.0.0/24", gateway=MACHINE_IPV4, ip_range="10.88.0.128/25")
    request = network_pb.CreateNetworkRequest(
        name=name,
        driver="macvlan",
        macvlan=network_pb.MacvlanOptions(parent=parent),
        ipam=network_pb.Ipam(config=[ipam]),
    )
    return await engine.networks.CreateNetwork(request, timeout=60)


def fetched(machine: Namespace, address: str) -> bytes:
    """What the container's own web server answers a machine of the link."""
    with closing(machine.socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.connect((address, 80))
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while more := client.recv(4096):
            answer += more
        return answer


async def test_a_container_serves_the_link_through_restarts_of_both(engine: Slipway, machine: Namespace) -> None:
    await make(engine, "lan")
    port = container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_port="18080")])
    request = pb.CreateContainerRequest(
        name="web",
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sh", "-c", _SERVE]),
        host_config=container_pb2.HostConfig(
            network_mode="lan",
            port_bindings={"80/tcp": port},
        ),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={"lan": container_pb2.EndpointSettings(mac_address="02:00:00:00:88:07")}
        ),
    )
    created = await engine.containers.CreateContainer(request, timeout=60)
    assert any("macvlan" in warning for warning in created.warnings)
    await engine.start("web")
    settings = (await engine.inspect("web")).network_settings.networks["lan"]
    assert (settings.ip_address, settings.gateway) == ("10.88.0.128", MACHINE_IPV4)
    address = settings.ip_address
    async with asyncio.timeout(60):
        while True:
            with suppress(ConnectionRefusedError):  # it does not listen yet
                assert b"hello" in fetched(machine, address)
                break
            await asyncio.sleep(0.02)
    said = await engine.output("sh", "-c", _ASK.format(host=HOST_IPV4, address=address), network_mode="lan")
    assert f"Address: {address}" in said, said
    assert "\nhello\n" in said
    assert said.endswith("apart\n")

    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    assert b"hello" in fetched(machine, address)
    assert (await engine.inspect("web")).network_settings.networks["lan"].mac_address == "02:00:00:00:88:07"
    await engine.containers.RestartContainer(pb.RestartContainerRequest(container="web", timeout=0), timeout=60)
    moved = (await engine.inspect("web")).network_settings.networks["lan"]
    assert moved.mac_address == "02:00:00:00:88:07"
    assert moved.ip_address.startswith("10.88.0.")

    inspected = network_pb.InspectNetworkRequest(network="lan")
    shown = (await engine.networks.InspectNetwork(inspected, timeout=60)).network
    assert (shown.driver, shown.macvlan.parent) == ("macvlan", PARENT)
    assert shown.macvlan.mode == network_pb.MACVLAN_MODE_BRIDGE
    assert [one.name for one in shown.containers.values()] == ["web"]
    await engine.remove("web")


async def test_one_that_runs_joins_and_leaves(engine: Slipway, machine: Namespace) -> None:
    box = await engine.run("sleep", "300", name="box")
    join = network_pb.ConnectContainerRequest(network="lan", container="box")
    await engine.networks.ConnectContainer(join, timeout=60)
    address = (await engine.inspect(box)).network_settings.networks["lan"].ip_address
    machine.command("busybox", "ping", "-c", "3", "-W", "10", address)
    await engine.networks.DisconnectContainer(
        network_pb.DisconnectContainerRequest(network="lan", container="box"), timeout=30
    )
    assert "lan" not in (await engine.inspect(box)).network_settings.networks
    await engine.remove(box)
    await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network="lan"), timeout=60)


async def test_a_parent_that_is_not_there_is_refused_and_leaves_no_network(engine: Slipway) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="there is no interface 'eth9' on this node") as caught:
        await make(engine, "nowhere", parent="eth9")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    listed = await engine.networks.ListNetworks(network_pb.ListNetworksRequest(driver=["macvlan"]), timeout=60)
    assert list(listed.networks) == []
