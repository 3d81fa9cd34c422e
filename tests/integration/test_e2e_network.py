"""The default bridge as its users see it: each other, the host, the world behind the host, and the modes without it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb

from tests.fixtures.netns import Namespace, command, new_namespace
from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The outside world: a documentation network (RFC 5737, RFC 3849) between the host of the test and another machine.
HOST_V4, OUTSIDE_V4 = "198.51.100.1", "198.51.100.2"
HOST_V6, OUTSIDE_V6 = "2001:db8::1", "2001:db8::2"
PORT = 8080


@pytest.fixture
def outside() -> Iterator[Namespace]:
    """Another machine, one hop away, that knows no way to the containers' addresses."""
    with new_namespace() as machine:
        command("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "outside", "netns", machine.path)
        try:
            for family, address in (("-4", f"{HOST_V4}/24"), ("-6", f"{HOST_V6}/64")):
                command("ip", family, "address", "add", address, "dev", "uplink", *nodad(family))
            for family, address in (("-4", f"{OUTSIDE_V4}/24"), ("-6", f"{OUTSIDE_V6}/64")):
                machine.command("ip", family, "address", "add", address, "dev", "outside", *nodad(family))
            command("ip", "link", "set", "uplink", "up")
            machine.command("ip", "link", "set", "outside", "up")
            yield machine
        finally:
            command("ip", "link", "delete", "uplink")


def nodad(family: str) -> list[str]:
    return ["nodad"] if family == "-6" else []


async def endpoint(engine: Slipway, container: str) -> container_pb2.EndpointSettings:
    return (await engine.inspect(container)).network_settings.networks["bridge"]


@pytest.mark.parametrize("family", ["v4", "v6"])
async def test_two_containers_reach_each_other_and_the_host(engine: Slipway, family: str) -> None:
    first = await engine.run("sleep", "300")
    settings = await endpoint(engine, first)
    neighbour = settings.ip_address if family == "v4" else settings.global_ipv6_address
    gateway = settings.gateway if family == "v4" else settings.ipv6_gateway

    said = await engine.output("sh", "-c", f"ping -c 1 -W 5 {neighbour} && ping -c 1 -W 5 {gateway} && echo both")

    assert said.endswith("both\n")
    assert command("busybox", "ping", "-c", "1", "-W", "5", neighbour)
    await engine.remove(first)


@pytest.mark.parametrize(("family", "host", "far"), [("v4", HOST_V4, OUTSIDE_V4), ("v6", HOST_V6, OUTSIDE_V6)])
async def test_another_machine_sees_the_hosts_address_not_the_containers(
    engine: Slipway, outside: Namespace, family: str, host: str, far: str
) -> None:
    kind = socket.AF_INET if family == "v4" else socket.AF_INET6
    with outside.socket(kind, socket.SOCK_STREAM) as server:
        server.bind((far, PORT))
        server.listen()
        container = await engine.run("sh", "-c", f"echo hello | nc {far} {PORT}")
        connection, peer = server.accept()
        with connection:
            assert connection.recv(5) == b"hello"
        assert peer[0] == host
    await engine.remove(container)


async def test_mode_none_has_loopback_and_nothing_else(engine: Slipway) -> None:
    assert (await engine.output("ls", "/sys/class/net", network_mode="none")).split() == ["lo"]


async def test_mode_host_has_the_hosts_interfaces_and_name(engine: Slipway) -> None:
    said = await engine.output("sh", "-c", "ip -o link; hostname", network_mode="host")

    assert f"slw-{engine.instance}" in said
    assert said.split()[-1] == socket.gethostname()


async def test_the_container_finds_itself_and_what_it_was_told_by_name(engine: Slipway) -> None:
    container = await engine.run(
        *("sh", "-c", "cat /etc/hosts /etc/hostname /etc/resolv.conf"),
        config={"hostname": "web", "domainname": "example.org"},
        extra_hosts=["db:192.0.2.7", "gate:host-gateway"],
        dns=["192.0.2.53"],
        dns_search=["example.org"],
        dns_options=["ndots:2"],
    )
    settings = await endpoint(engine, container)
    await engine.wait(container)

    lines = (await engine.logs(container)).decode().replace("\t", " ").splitlines()
    assert "127.0.0.1 localhost" in lines
    assert "192.0.2.7 db" in lines
    assert f"{settings.gateway} gate" in lines or settings.gateway == ""
    assert any(line.endswith("web.example.org web") for line in lines)
    assert "nameserver 192.0.2.53" in lines
    assert "search example.org" in lines
    assert "options ndots:2" in lines
    await engine.remove(container)


async def test_a_fixed_hardware_address_is_kept(engine: Slipway) -> None:
    networking = container_pb2.NetworkingConfig(
        endpoints_config={"bridge": container_pb2.EndpointSettings(mac_address="02:42:ac:11:00:09")}
    )
    config = container_pb2.ContainerConfig(image="busybox", cmd=["cat", "/sys/class/net/eth0/address"])
    created = await engine.containers.CreateContainer(
        pb.CreateContainerRequest(config=config, networking_config=networking)
    )
    await engine.start(created.id)
    await engine.wait(created.id)
    assert await engine.logs(created.id) == b"02:42:ac:11:00:09\n"
    await engine.remove(created.id)
