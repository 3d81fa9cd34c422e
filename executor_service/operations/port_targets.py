"""Which of a container's addresses its published ports lead to: those on the network that is its gateway, for what it
answers leaves by that one."""

from __future__ import annotations

from executor_service.container import ContainerSpec
from executor_service.network.network import gateway_order
from executor_service.network.port_allocation import Targets
from executor_service.network.sandbox import Sandbox
from executor_service.node import Node


def port_targets(node: Node, spec: ContainerSpec, sandbox: Sandbox) -> Targets:
    """Empty for a family in which it has no gateway: only internal networks, or none."""
    priorities = {endpoint.network_id: endpoint.gateway_priority for endpoint in spec.endpoints}
    endpoints = {endpoint.network_id: endpoint for endpoint in sandbox.endpoints}
    order = gateway_order(
        (priorities.get(network_id, 0), network)
        for network_id in endpoints
        if (network := node.seams.networks.find(network_id)) is not None
    )
    found = [endpoints[network.id] for network in order]
    return Targets(
        ipv4=next((endpoint.ipv4_address for endpoint in found if endpoint.ipv4_address), ""),
        ipv6=next((endpoint.ipv6_address for endpoint in found if endpoint.ipv6_address), ""),
    )
