"""Which containers are called what, and whose questions are answered: from their specifications and sandboxes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from executor_service.container import ContainerSpec, NameResolution, NetworkMode
from executor_service.dns.names import Registration
from executor_service.dns.sandbox_server import Resolving
from executor_service.dns.service import NameServer
from executor_service.dns.upstreams import searches_first
from executor_service.network.files import on_user_network
from executor_service.network.network import DEFAULT_NETWORK, Network
from executor_service.network.sandbox import Sandbox


class ContainerNames(Protocol):
    """Names on user-defined networks. Nothing of it is durable: a new executor is told of every running container."""

    async def follow(self, spec: ContainerSpec, sandbox: Sandbox) -> None:
        """The container runs in that sandbox: from the next query on it is called what its endpoints say, and what is
        asked there is answered. To be repeated when either changes. Costs nothing on the default network alone. Raises
        OSError."""

    async def forget(self, container_id: str) -> None:
        """It has ended. Idempotent."""


class EmbeddedNames:
    """ContainerNames through a NameServer. Calls for one container must not overlap. `find_network` by id."""

    def __init__(self, server: NameServer, find_network: Callable[[str], Network | None]) -> None:
        self._server = server
        self._find_network = find_network
        self._namespaces: dict[str, str] = {}  # by member; the path of a pin is never used twice
        self._registered: dict[str, set[str]] = {}  # networks, by container

    async def follow(self, spec: ContainerSpec, sandbox: Sandbox) -> None:
        namespace = sandbox.netns_path
        if spec.network_mode is NetworkMode.BRIDGE:
            self._register(spec, sandbox)
        if not on_user_network(sandbox.endpoints) and not self._server.serves(namespace):
            return
        self._namespaces[spec.id] = namespace
        # Whoever shares a sandbox has no settings of its own, but may be all that is left in it.
        if spec.network_mode is NetworkMode.BRIDGE or not self._server.serves(namespace):
            names = spec.names if spec.network_mode is NetworkMode.BRIDGE else sandbox.resolution
            resolving = self._resolving(names, sandbox)
            await self._server.serve(namespace, namespace=namespace, resolving=resolving)

    async def forget(self, container_id: str) -> None:
        for network_id in self._registered.pop(container_id, set()):
            self._server.withdraw(network_id, container_id)
        namespace = self._namespaces.pop(container_id, None)
        if namespace is not None and namespace not in self._namespaces.values():
            await self._server.stop(namespace)

    def _register(self, spec: ContainerSpec, sandbox: Sandbox) -> None:
        names = {endpoint.network_id: endpoint.dns_names for endpoint in spec.endpoints}
        now: set[str] = set()
        for endpoint in sandbox.endpoints:
            network = self._find_network(endpoint.network_id)
            if endpoint.network_id == DEFAULT_NETWORK or network is None:
                continue
            now.add(network.id)
            self._server.register(
                Registration(
                    network_id=network.id,
                    network_name=network.name,
                    container_id=spec.id,
                    names=names.get(network.id, ()),
                    addresses=tuple(filter(None, (endpoint.ipv4_address, endpoint.ipv6_address))),
                )
            )
        for network_id in self._registered.pop(spec.id, set()) - now:
            self._server.withdraw(network_id, spec.id)
        if now:
            self._registered[spec.id] = now

    def _resolving(self, names: NameResolution, sandbox: Sandbox) -> Resolving:
        networks = [self._find_network(endpoint.network_id) for endpoint in sandbox.endpoints]
        return Resolving(
            networks=tuple(endpoint.network_id for endpoint in sandbox.endpoints),
            # Asked from the host's namespace, where its loopback is not the container's.
            servers=tuple(server for server in names.servers if not ip_address(server).is_loopback),
            forward=any(network is not None and not network.internal for network in networks),
            search_first=searches_first(names.options) if names.options else None,
        )


_: type[ContainerNames] = EmbeddedNames
