"""From a container's specification and sandbox to names and to who is served."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executor_service.container import ContainerSpec, EndpointSpec, NameResolution, NetworkMode
from executor_service.dns.containers import EmbeddedNames
from executor_service.dns.names import Registration
from executor_service.dns.sandbox_server import Resolving
from executor_service.dns.service import NameServer
from executor_service.network.network import Network
from executor_service.network.sandbox import Endpoint, Sandbox

NETWORKS = {
    "bridge": Network(id="bridge", name="bridge", bridge="b0"),
    "n1": Network(id="n1", name="app", bridge="b1"),
    "n2": Network(id="n2", name="back", bridge="b2", internal=True),
}


class Recorder(NameServer):
    def __init__(self) -> None:
        super().__init__()
        self.names: dict[tuple[str, str], Registration] = {}
        self.served: dict[str, Resolving] = {}

    async def serve(self, sandbox: str, *, namespace: str, resolving: Resolving) -> None:
        assert sandbox == namespace
        self.served[sandbox] = resolving

    def serves(self, sandbox: str) -> bool:
        return sandbox in self.served

    async def stop(self, sandbox: str) -> None:
        self.served.pop(sandbox, None)

    def register(self, registration: Registration) -> None:
        self.names[registration.network_id, registration.container_id] = registration

    def withdraw(self, network_id: str, container_id: str) -> None:
        self.names.pop((network_id, container_id), None)


@pytest.fixture
def server() -> Recorder:
    return Recorder()


@pytest.fixture
def names(server: Recorder) -> EmbeddedNames:
    return EmbeddedNames(server, NETWORKS.get)


def spec(*networks: str, container_id: str = "c1", resolution: NameResolution | None = None) -> ContainerSpec:
    return ContainerSpec(
        id=container_id,
        image_id="",
        args=("true",),
        network_mode=NetworkMode.BRIDGE,
        endpoints=tuple(EndpointSpec(network_id=network, dns_names=("web", "front")) for network in networks),
        names=resolution or NameResolution(),
    )


def sandbox(*networks: str) -> Sandbox:
    endpoints = tuple(
        Endpoint(
            network_id=network,
            network_name="net",
            interface=f"eth{number}",
            mac_address="",
            ipv4_address=f"10.0.{number}.2",
        )
        for number, network in enumerate(networks)
    )
    return Sandbox(id="c1", mode=NetworkMode.BRIDGE, netns_path="/pins/one", endpoints=endpoints)


async def test_the_default_network_has_no_names_and_no_server(server: Recorder, names: EmbeddedNames) -> None:
    await names.follow(spec("bridge"), sandbox("bridge"))
    assert (server.names, server.served) == ({}, {})
    await names.forget("c1")


async def test_a_container_is_called_what_its_endpoints_say(server: Recorder, names: EmbeddedNames) -> None:
    await names.follow(spec("bridge", "n1"), sandbox("bridge", "n1"))
    assert list(server.names.values()) == [
        Registration(
            network_id="n1",
            network_name="app",
            container_id="c1",
            names=("web", "front"),
            addresses=("10.0.1.2",),
        )
    ]
    assert server.served == {"/pins/one": Resolving(networks=("bridge", "n1"))}
    await names.forget("c1")
    await names.forget("c1")
    assert (server.names, server.served) == ({}, {})


async def test_what_is_disconnected_is_unknown_but_goes_on_asking(server: Recorder, names: EmbeddedNames) -> None:
    await names.follow(spec("bridge", "n1", "n2"), sandbox("bridge", "n1", "n2"))
    await names.follow(spec("bridge", "n1"), sandbox("bridge", "n1"))
    assert set(server.names) == {("n1", "c1")}
    # Its resolv.conf goes on naming our server.
    await names.follow(spec("bridge"), sandbox("bridge"))
    assert server.names == {}
    assert server.served == {"/pins/one": Resolving(networks=("bridge",))}
    await names.forget("c1")
    assert server.served == {}


@pytest.mark.parametrize(("networks", "forward"), [(("n1",), True), (("n2",), False), (("n1", "n2"), True)])
async def test_internal_networks_alone_are_not_forwarded(
    server: Recorder, names: EmbeddedNames, networks: tuple[str, ...], forward: bool
) -> None:
    await names.follow(spec(*networks), sandbox(*networks))
    assert server.served["/pins/one"].forward is forward


@pytest.mark.parametrize(
    ("resolution", "servers", "search_first"),
    [
        (NameResolution(), (), None),
        (NameResolution(servers=("192.0.2.53", "127.0.0.1", "::1", "fd00::53")), ("192.0.2.53", "fd00::53"), None),
        (NameResolution(options=("edns0",)), (), False),
        (NameResolution(options=("ndots:0",)), (), False),
        (NameResolution(options=("ndots:5",)), (), True),
        (NameResolution(options=("ndots:x",)), (), False),
    ],
)
async def test_the_containers_own_settings(
    server: Recorder,
    names: EmbeddedNames,
    resolution: NameResolution,
    servers: tuple[str, ...],
    search_first: bool | None,
) -> None:
    await names.follow(spec("n1", resolution=resolution), sandbox("n1"))
    assert server.served["/pins/one"] == Resolving(networks=("n1",), servers=servers, search_first=search_first)


async def test_a_shared_sandbox_is_served_until_the_last_one_leaves(server: Recorder, names: EmbeddedNames) -> None:
    own = NameResolution(servers=("192.0.2.53",))
    await names.follow(spec("n1", resolution=own), sandbox("n1"))
    sharing = replace(spec(container_id="c2"), network_mode=NetworkMode.CONTAINER, network_container="c1")
    await names.follow(sharing, sandbox("n1"))
    assert set(server.names) == {("n1", "c1")}
    assert server.served["/pins/one"].servers == ("192.0.2.53",)
    await names.forget("c1")
    assert (server.names, set(server.served)) == ({}, {"/pins/one"})
    await names.forget("c2")
    assert server.served == {}
    # A new executor finds only the one that shares it.
    await names.follow(sharing, replace(sandbox("n1"), resolution=own))
    assert server.served == {"/pins/one": Resolving(networks=("n1",), servers=("192.0.2.53",))}
