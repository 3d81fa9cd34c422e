"""The networks of a container: found by what a request calls them, and checked against what each allows."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json

from api_service.operations.engine import Engine
from api_service.operations.network_list import find_network
from api_service.records.config import EndpointSettings, NetworkingConfig
from api_service.records.network import DEFAULT_NETWORK, MACVLAN_DRIVER, NetworkPhase, NetworkRecord, Subnet
from api_service.validation.network_mode import has_networks
from common.errors import FailedPrecondition, InvalidArgument, NotFound, Violation

_FIELD = "networking_config.endpoints_config"
_PORTS = "host_config.port_bindings has no effect"
_MAX_SHOWN = 10


async def resolve_networks(
    engine: Engine, mode: str, networking: NetworkingConfig, *, node: str
) -> tuple[str, NetworkingConfig]:
    """The mode and the endpoints by the networks' names, that of the mode first and the others by name. Raises
    NotFound, InvalidArgument for what a network forbids, FailedPrecondition for one that is being removed or on another
    node."""
    if not has_networks(mode):
        return mode, networking
    asked = {mode: EndpointSettings(), **networking.endpoints}
    found = {
        reference: await _usable(engine, reference, _field(reference, given=reference in networking.endpoints))
        for reference in asked
    }
    violations: list[Violation] = []
    endpoints: dict[str, EndpointSettings] = {}
    given: set[str] = set()
    for reference, settings in asked.items():
        require_on_node(found[reference], node)
        network, path = found[reference], f"{_FIELD}[{json.dumps(reference)}]"
        if reference in networking.endpoints and network.name in given:
            why = f"is the network '{network.name}', which is here by another name too; give its settings once"
            violations.append(Violation(field=path, description=why))
        if reference in networking.endpoints:
            given.add(network.name)
        violations += network_violations(settings, network, path)
        endpoints[network.name] = dataclasses.replace(settings, network_id=network.id)
    if violations:
        raise InvalidArgument(violations=violations)
    first = found[mode].name
    ordered = {name: endpoints[name] for name in (first, *sorted(endpoints.keys() - {first}))}
    return first, NetworkingConfig(endpoints=ordered)


async def network_warnings(engine: Engine, mode: str, networking: NetworkingConfig, *, publishes: bool) -> list[str]:
    """Of a container that is made: ports are the node's. Nothing of an internal network passes that, and nothing of a
    macvlan one; as in Docker that is no error."""
    found = []
    for reference in {mode, *networking.endpoints} if publishes and has_networks(mode) else ():
        with contextlib.suppress(NotFound):
            found.append(await find_network(engine, reference))
    ways_out = [network for network in found if not network.internal]
    if found and not ways_out:
        return [f"{_PORTS} on internal networks: nothing is published while the container is on no other."]
    if found and all(network.driver == MACVLAN_DRIVER for network in ways_out):
        return [f"{_PORTS} on macvlan networks: the container's ports are open on its link."]
    return []


def network_violations(settings: EndpointSettings, network: NetworkRecord, path: str) -> list[Violation]:
    """What this network does not allow."""
    if network.id == DEFAULT_NETWORK:
        return []
    return [
        *_validate_fixed(settings.ipv4_address, network, network.ipv4, f"{path}.ipv4_address"),
        *_validate_fixed(settings.ipv6_address, network, network.ipv6, f"{path}.ipv6_address"),
    ]


def _field(reference: str, *, given: bool) -> str:
    return f"{_FIELD}[{json.dumps(reference)}]" if given else "host_config.network_mode"


async def _usable(engine: Engine, reference: str, field: str) -> NetworkRecord:
    if reference == DEFAULT_NETWORK:
        return NetworkRecord(id=DEFAULT_NETWORK, name=DEFAULT_NETWORK, created_at=0, node="")
    try:
        network = await engine.networks.find(reference)
    except NotFound as error:
        known = [DEFAULT_NETWORK, *(one.name for one in await engine.networks.all())]
        more = f" and {len(known) - _MAX_SHOWN} more" if len(known) > _MAX_SHOWN else ""
        raise NotFound(
            f"{error.message} ({field}); there are {', '.join(known[:_MAX_SHOWN])}{more}",
            resource_type="network",
            resource_name=reference,
            reason="NETWORK_NOT_FOUND",
        ) from error
    require_usable(network)
    return network


def require_usable(network: NetworkRecord) -> None:
    """Raises FailedPrecondition."""
    if network.phase is NetworkPhase.REMOVING:
        raise FailedPrecondition(
            f"network {network.name!r} is being removed; repeat the request when it is gone, or choose another one",
            resource_type="network",
            resource_name=network.name,
            reason="NETWORK_BEING_REMOVED",
        )


def require_on_node(network: NetworkRecord, node: str) -> None:
    """Raises FailedPrecondition."""
    if network.id != DEFAULT_NETWORK and network.is_local and network.node != node:
        raise FailedPrecondition(
            f"network {network.name!r} is on node {network.node!r}, and the container on {node!r}; give it one of its "
            "own node",
            resource_type="network",
            resource_name=network.name,
            reason="NETWORK_ELSEWHERE",
        )


def _validate_fixed(address: str, network: NetworkRecord, subnet: Subnet | None, field: str) -> list[Violation]:
    if not address:
        return []
    if network.overlay is not None:
        why = f"which addresses of '{network.name}' a node has is chosen with its first container; leave it empty"
        return [Violation(field=field, description=why)]
    if subnet is None or not subnet.configured:
        why = f"a fixed address needs a network whose subnet was given when it was made, '{network.name}' has none"
        return [Violation(field=field, description=f"{why} of this family; leave it empty to get one chosen")]
    wanted, within = ipaddress.ip_address(address), ipaddress.ip_network(subnet.subnet)
    taken = {ipaddress.ip_address(text) for text in (subnet.gateway, *subnet.aux_addresses.values())}
    taken |= {within.network_address} | ({within.broadcast_address} if within.version == 4 else set())
    if wanted not in within or wanted in taken:
        why = f"{address} is not an address of {subnet.subnet} that network '{network.name}' gives to containers"
        return [Violation(field=field, description=why)]
    return []
