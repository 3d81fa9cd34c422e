"""A running container's ports as inspect and list show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from slipway.v1 import container_pb2 as pb2

from api_service.conversion.networking import bindings_to_proto
from api_service.records.config import PortBinding
from api_service.records.container import BoundPort, ContainerRecord
from api_service.validation.ports import PortRange, parse_port, without


def ports_by_name(record: ContainerRecord) -> dict[str, pb2.PortBindings]:
    """Docker's `NetworkSettings.Ports`."""
    found: dict[str, list[PortBinding]] = {str(span): [] for span in _unpublished(record)}
    for port in record.network.ports:
        binding = PortBinding(host_ip=port.host_ip, host_port=str(port.host_port))
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    return {name: bindings_to_proto(bindings) for name, bindings in found.items()}


def ports_as_listed(record: ContainerRecord) -> list[pb2.Port]:
    """Docker's `Ports` of a list, in ascending order."""
    published = [
        pb2.Port(ip=port.host_ip, private_port=port.container_port, public_port=port.host_port, type=port.protocol)
        for port in _in_order(record.network.ports)
    ]
    exposed = [
        pb2.Port(
            private_port=span.first, private_port_last=span.last if span.last > span.first else 0, type=span.protocol
        )
        for span in _unpublished(record)
    ]
    return sorted([*published, *exposed], key=lambda port: (port.private_port, port.type, port.public_port, port.ip))


def _in_order(ports: Iterable[BoundPort]) -> list[BoundPort]:
    return sorted(ports, key=lambda port: (port.container_port, port.protocol, port.host_port, port.host_ip))


def _unpublished(record: ContainerRecord) -> Iterator[PortRange]:
    if record.state.running and record.network.endpoints:
        taken = {(port.container_port, port.protocol) for port in record.network.ports}
        for exposed in record.config.exposed_ports:
            yield from without(parse_port(exposed), taken)
