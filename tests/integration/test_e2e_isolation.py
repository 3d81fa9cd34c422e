"""Who reaches whom: every kind of network, the host, and two machines beside it that know a way to every container.

All pairs are tried at once, in both families; what is reached is compared with what may be.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import network_service_pb2 as network_pb

from tests.fixtures.frames import send_datagram
from tests.fixtures.netns import Namespace, command, new_namespace, open_namespace
from tests.fixtures.slipway import Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

NETWORKS: dict[str, dict[str, object]] = {
    "front": {},
    "back": {},
    "inner": {"internal": True},
    "apart": {"enable_icc": False},
    "routed": {
        "gateway_mode_ipv4": network_pb.GATEWAY_MODE_ROUTED,
        "gateway_mode_ipv6": network_pb.GATEWAY_MODE_ROUTED,
    },
}
MACHINES = {"lan": "198.51.100", "far": "203.0.113"}  # documentation networks (RFC 5737, RFC 3849)
LISTENING, LOOPBACK_ONLY, PUBLISHED = 7000, 7001, 8120
PATIENCE = 60.0  # seconds
LOST = 1.5  # seconds: a first packet may be lost, and is sent again after one
QUIET = 0.3  # seconds in which what was let through would have come


@dataclass(frozen=True, slots=True)
class Place:
    """`addresses`: IPv4 and IPv6. `network` empty: it is no container."""

    name: str
    namespace: Namespace
    addresses: tuple[str, ...]
    network: str = ""


@dataclass(slots=True)
class World:
    engine: Slipway
    host: Namespace
    containers: list[Place] = field(default_factory=list)
    machines: list[Place] = field(default_factory=list)
    gateways: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bridges: dict[str, str] = field(default_factory=dict)

    def container(self, name: str) -> Place:
        return next(one for one in self.containers if one.name == name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with ExitStack() as stack:
        host = stack.enter_context(open_namespace("/proc/thread-self/ns/net"))
        machines = [stack.enter_context(machine(name)) for name in MACHINES]
        async with installed(tmp_path_factory.mktemp("services")) as engine:
            world = World(engine, host, machines=machines)
            await fill(world, stack)
            yield world


@contextmanager
def machine(name: str) -> Iterator[Place]:
    """Another machine on a link of its own, that sends whatever it has to the host."""
    prefix, prefix6 = MACHINES[name], f"2001:db8:{list(MACHINES).index(name) + 1}:"
    with new_namespace() as namespace:
        command("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", namespace.path)
        try:
            for address in (f"{prefix}.1/24", f"{prefix6}:1/64"):
                command("ip", "address", "add", address, "dev", f"to-{name}", *nodad(address))
            command("ip", "link", "set", f"to-{name}", "up")
            for address in (f"{prefix}.2/24", f"{prefix6}:2/64"):
                namespace.command("ip", "address", "add", address, "dev", "eth0", *nodad(address))
            namespace.command("ip", "link", "set", "eth0", "up")
            for gateway in (f"{prefix}.1", f"{prefix6}:1"):
                namespace.command("ip", "route", "add", "default", "via", gateway)
            yield Place(name, namespace, (f"{prefix}.2", f"{prefix6}:2"))
        finally:
            command("ip", "link", "delete", f"to-{name}")


def nodad(address: str) -> tuple[str, ...]:
    return ("nodad",) if ":" in address else ()


async def fill(world: World, stack: ExitStack) -> None:
    """Two containers on each network; those of `front` publish a port."""
    engine = world.engine
    for name, options in NETWORKS.items():
        request = network_pb.CreateNetworkRequest(
            name=name,
            internal=bool(options.get("internal")),
            bridge=network_pb.BridgeOptions(**{key: value for key, value in options.items() if key != "internal"}),  # type: ignore[arg-type]  # checked by protobuf
        )
        await engine.networks.CreateNetwork(request, timeout=30)
    for name in (*NETWORKS, "bridge"):
        for number in (1, 2):
            binding = container_pb2.PortBinding(host_port=str(PUBLISHED))
            ports = {f"{LISTENING}": container_pb2.PortBindings(bindings=[binding])}
            published = name == "front" and number == 1
            container = await engine.run(
                "sleep", "300", name=f"{name}-{number}", network_mode=name, port_bindings=ports if published else {}
            )
            shown = await engine.inspect(container)
            settings = shown.network_settings.networks[name]
            namespace = stack.enter_context(open_namespace(f"/proc/{shown.state.pid}/ns/net"))
            addresses = (settings.ip_address, settings.global_ipv6_address)
            world.containers.append(Place(f"{name}-{number}", namespace, addresses, name))
            world.gateways[name] = (settings.gateway, settings.ipv6_gateway)
        shown_network = await engine.networks.InspectNetwork(network_pb.InspectNetworkRequest(network=name), timeout=60)
        world.bridges[name] = shown_network.network.bridge.name


def listening(namespace: Namespace, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = namespace.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((address, port))
    made.listen(200)
    return made


def reached(
    attempts: dict[tuple[str, str], tuple[Namespace, str, int]], allowed: set[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Those attempts to connect (namespace, address, port) that an answer came to, all made at once. It is waited for
    those that are allowed, and as long for all others as a lost packet takes."""
    with ExitStack() as stack:
        waiting: dict[int, tuple[tuple[str, str], socket.socket]] = {}
        poll = select.poll()
        found: set[tuple[str, str]] = set()
        for key, (namespace, address, port) in attempts.items():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            asking = stack.enter_context(namespace.socket(family, socket.SOCK_STREAM))
            asking.setblocking(False)
            if asking.connect_ex((address, port)) not in {0, errno.EINPROGRESS}:
                continue  # it knows no way there
            waiting[asking.fileno()] = (key, asking)
            poll.register(asking, select.POLLOUT)
        begun = time.monotonic()
        while waiting:
            left = begun + (LOST if allowed <= found else PATIENCE) - time.monotonic()
            if left <= 0:
                break
            for descriptor, _ in poll.poll(left * 1000):
                poll.unregister(descriptor)
                key, asking = waiting.pop(descriptor)
                if asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(key)
        return found


def may_reach(client: Place, server: Place) -> bool:
    if client.network and server.network:
        return client.network == server.network and client.network != "apart"
    if server.network:
        return server.network == "routed"
    return client.network != "inner"


async def test_each_reaches_its_own_network_and_nobody_else(world: World) -> None:
    attempts: dict[tuple[str, str], tuple[Namespace, str, int]] = {}
    allowed = set()

    def attempt(client: Place | None, label: str, address: str, port: int = LISTENING, *, may: bool) -> None:
        key = (client.name if client else "host", f"{label} {address}")
        attempts[key] = (client.namespace if client else world.host, address, port)
        if may:
            allowed.add(key)

    # What can be tried from inside is: a way by the gateway to a neighbour that is kept apart, and out of `inner`.
    for address, gateway in zip(world.container("apart-2").addresses, world.gateways["apart"], strict=True):
        world.container("apart-1").namespace.command("ip", "route", "add", address, "via", gateway)
    for gateway in world.gateways["inner"]:
        world.container("inner-1").namespace.command("ip", "route", "add", "default", "via", gateway)
    for server in (*world.containers, *world.machines):
        for address in server.addresses:
            for client in (*world.containers, *world.machines):
                if client is not server and (client.network or server.network):
                    attempt(client, server.name, address, may=may_reach(client, server))
            attempt(None, server.name, address, may=True)
    for client in world.containers:
        for network, gateways in world.gateways.items():
            for address in gateways:
                attempt(client, f"gateway of {network}", address, may=network == client.network)
                attempt(client, f"loopback by {network}", address, LOOPBACK_ONLY, may=False)
        for address in ("198.51.100.1", "2001:db8:1::1"):
            attempt(client, "the host", address, may=client.network != "inner")
            attempt(client, "the published port", address, PUBLISHED, may=client.network != "inner")
    for client in world.machines:
        for address in ("198.51.100.1", "2001:db8:1::1"):
            attempt(client, "the published port", address, PUBLISHED, may=True)

    with ExitStack() as stack:
        for place in (*world.containers, *world.machines):
            for address in ("0.0.0.0", "::"):
                stack.enter_context(listening(place.namespace, address, LISTENING))
        for address, port in (("0.0.0.0", LISTENING), ("::", LISTENING)):
            stack.enter_context(listening(world.host, address, port))
        for address in ("127.0.0.1", "::1"):
            stack.enter_context(listening(world.host, address, LOOPBACK_ONLY))
        found = await asyncio.to_thread(reached, attempts, allowed)
    assert sorted(found - allowed) == []
    assert sorted(allowed - found) == []
    assert len(attempts) > 400


def hardware_address(interface: str) -> str:
    return command("ip", "-br", "link", "show", interface).split()[2]


@contextmanager
def receiving(namespace: Namespace, address: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.socket(family, socket.SOCK_DGRAM) as made:
        made.bind((address, LISTENING))
        yield made


def comes_to(server: socket.socket, *, wait: float = PATIENCE) -> str:
    """The sender's address, empty when nothing came."""
    server.settimeout(wait)
    try:
        return str(server.recvfrom(64)[1][0])
    except TimeoutError:
        return ""


@pytest.mark.parametrize("version", [4, 6])
async def test_a_forged_source_gets_neither_out_nor_to_the_host(world: World, version: int) -> None:
    family = 0 if version == 4 else 1
    client, lan = world.container("front-2"), world.machines[0]
    router = hardware_address(world.bridges["front"])
    own, gateway = client.addresses[family], world.gateways["front"][family]
    host = "198.51.100.1" if version == 4 else "2001:db8:1::1"
    forged = (
        world.container("back-1").addresses[family],
        world.gateways["back"][family],
        lan.addresses[family],
        world.machines[1].addresses[family],
    )

    def send(source: str, destination: str) -> None:
        send_datagram(client.namespace, "eth0", source=source, destination=destination, port=LISTENING, router=router)

    with receiving(lan.namespace, lan.addresses[family]) as beyond, receiving(world.host, gateway) as here:
        for source in forged:
            send(source, lan.addresses[family])
            send(source, gateway)
        assert (comes_to(beyond, wait=QUIET), comes_to(here, wait=QUIET)) == ("", "")
        send(own, lan.addresses[family])
        send(own, gateway)
        assert (comes_to(beyond), comes_to(here)) == (host, own)


@pytest.mark.parametrize(("loopback", "family"), [("127.0.0.1", 0), ("::1", 1)])
async def test_the_hosts_loopback_is_reached_from_no_network(world: World, loopback: str, family: int) -> None:
    with receiving(world.host, loopback) as service:
        for client in world.containers:
            router = hardware_address(world.bridges[client.network])
            send_datagram(
                *(client.namespace, "eth0"),
                source=client.addresses[family],
                destination=loopback,
                port=LISTENING,
                router=router,
            )
        for machine, link in zip(world.machines, MACHINES, strict=True):
            router = hardware_address(f"to-{link}")
            source = machine.addresses[family]
            send_datagram(machine.namespace, "eth0", source=source, destination=loopback, port=LISTENING, router=router)
        assert comes_to(service, wait=QUIET) == ""
        with world.host.socket(service.family, socket.SOCK_DGRAM) as local:
            local.sendto(b"honest", (loopback, LISTENING))
        assert comes_to(service) == loopback


async def test_a_containers_router_advertisement_moves_nobodys_routes(world: World) -> None:
    liar, neighbour = world.container("front-2"), world.container("front-1")

    def routes(namespace: Namespace) -> str:
        return namespace.command("ip", "-6", "route", "show") + namespace.command("ip", "-6", "-o", "address")

    before = [routes(namespace) for namespace in (neighbour.namespace, world.host)]
    # A default router for half an hour, and a prefix to take an address of: RFC 4861 section 4.2, 4.6.2.
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 1800, 1800, 0) + socket.inet_pton(
        socket.AF_INET6, "2001:db8:bad::"
    )
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    wire = liar.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    watching = neighbour.namespace.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    with wire, watching:
        watching.settimeout(PATIENCE)
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        wire.sendto(advertisement, ("ff02::1", 0, 0, liar.namespace.run(lambda: socket.if_nametoindex("eth0"))))
        while watching.recv(1500)[:1] != advertisement[:1]:
            pass
    assert [routes(namespace) for namespace in (neighbour.namespace, world.host)] == before
