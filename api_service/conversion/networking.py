"""Between the messages about the networks and ports of a container and the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from slipway.v1 import container_pb2 as pb2

from api_service.records.config import EndpointSettings, NetworkingConfig, PortBinding


def port_bindings_from_proto(messages: Mapping[str, pb2.PortBindings]) -> dict[str, tuple[PortBinding, ...]]:
    return {
        port: tuple(PortBinding(host_ip=one.host_ip, host_port=one.host_port) for one in message.bindings)
        for port, message in messages.items()
    }


def port_bindings_to_proto(bindings: Mapping[str, Iterable[PortBinding]]) -> dict[str, pb2.PortBindings]:
    return {port: bindings_to_proto(some) for port, some in bindings.items()}


def bindings_to_proto(bindings: Iterable[PortBinding]) -> pb2.PortBindings:
    return pb2.PortBindings(
        bindings=[pb2.PortBinding(host_ip=binding.host_ip, host_port=binding.host_port) for binding in bindings]
    )


def endpoint_from_proto(message: pb2.EndpointSettings) -> EndpointSettings:
    """What is asked for; what is observed is left out."""
    return EndpointSettings(
        ipv4_address=message.ipv4_address,
        ipv6_address=message.ipv6_address,
        aliases=tuple(message.aliases),
        mac_address=message.mac_address,
        gw_priority=message.gw_priority,
    )


def networking_from_proto(message: pb2.NetworkingConfig) -> NetworkingConfig:
    return NetworkingConfig(
        endpoints={name: endpoint_from_proto(endpoint) for name, endpoint in message.endpoints_config.items()}
    )


def networking_to_proto(networking: NetworkingConfig) -> pb2.NetworkingConfig:
    return pb2.NetworkingConfig(
        endpoints_config={
            name: pb2.EndpointSettings(
                ipv4_address=settings.ipv4_address,
                ipv6_address=settings.ipv6_address,
                aliases=settings.aliases,
                mac_address=settings.mac_address,
                gw_priority=settings.gw_priority,
                network_id=settings.network_id,
            )
            for name, settings in networking.endpoints.items()
        }
    )
