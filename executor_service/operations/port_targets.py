"""Where a container's published ports lead to: its addresses on the network that is its gateway, for what it answers
leaves by that one."""

from __future__ import annotations

from executor_service.container import ContainerSpec
from executor_service.container_record import ContainerRecord
from executor_service.network.network import gateway_order
from executor_service.network.port_allocation import Targets
from executor_service.network.publication import Publication
from executor_service.network.sandbox import Sandbox
from executor_service.node import Node


def passes_host(node: Node, sandbox: Sandbox) -> bool:
    """Whether one of its networks does. To a container of none the world comes past the host, so ports are not
    published, as in Docker, and that is no error."""
    found = [node.seams.networks.find(endpoint.network_id) for endpoint in sandbox.endpoints]
    return not found or any(network is None or network.through_host for network in found)


def port_targets(node: Node, spec: ContainerSpec, sandbox: Sandbox) -> Targets:
    """Empty for a family in which it has no gateway: only internal networks, or none; and for one in which what it
    answers would not pass the host."""
    priorities = {endpoint.network_id: endpoint.gateway_priority for endpoint in spec.endpoints}
    endpoints = {endpoint.network_id: endpoint for endpoint in sandbox.endpoints}
    order = gateway_order(
        (priorities.get(network_id, 0), network)
        for network_id in endpoints
        if (network := node.seams.networks.find(network_id)) is not None
    )
    ipv4 = next((network for network in order if network.ipv4 is not None), None)
    ipv6 = next((network for network in order if network.ipv6 is not None), None)
    return Targets(
        ipv4=endpoints[ipv4.id].ipv4_address if ipv4 is not None and ipv4.through_host else "",
        ipv6=endpoints[ipv6.id].ipv6_address if ipv6 is not None and ipv6.through_host else "",
    )


async def lead_ports(node: Node, spec: ContainerSpec, sandbox: Sandbox) -> Publication:
    """Of a container that runs, to where it is now; without a gateway it has no ports. Raises as
    `PortPublisher.publish`."""
    targets = port_targets(node, spec, sandbox)
    if targets.ipv4 or targets.ipv6:
        return await node.seams.ports.publish(spec.id, spec.published_ports, targets=targets)
    return await node.seams.ports.suspend(spec.id)


async def sandbox_of(node: Node, record: ContainerRecord) -> Sandbox | None:
    """As it is now, if the container runs and has one of its own."""
    if not record.phase.has_process:
        return None
    return next((sandbox for sandbox in await node.seams.network.list() if sandbox.id == record.id), None)
