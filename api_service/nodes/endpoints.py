"""What a node is told of a container's networks, and what that says of what was asked for."""

from __future__ import annotations

from api_service.executor_client.container_spec import EndpointSpec
from api_service.records.config import EndpointSettings
from api_service.records.container import ContainerRecord
from api_service.records.network import DEFAULT_NETWORK

_SHORT_ID = 12  # characters


def endpoint_specs(record: ContainerRecord) -> tuple[EndpointSpec, ...]:
    """What the node is told, in the order of the interfaces."""
    return tuple(endpoint_spec(record, settings) for settings in record.networking_config.endpoints.values())


def endpoint_spec(record: ContainerRecord, settings: EndpointSettings) -> EndpointSpec:
    return EndpointSpec(
        network_id=settings.network_id,
        mac_address=settings.mac_address,
        ipv4_address=settings.ipv4_address,
        ipv6_address=settings.ipv6_address,
        dns_names=dns_names(record, settings),
        gateway_priority=settings.gw_priority,
    )


def dns_names(record: ContainerRecord, settings: EndpointSettings) -> tuple[str, ...]:
    """What the container is called on a user-defined network: its name, its aliases, its short id, its host name."""
    if settings.network_id == DEFAULT_NETWORK:
        return ()
    return tuple(dict.fromkeys((record.name, *settings.aliases, record.id[:_SHORT_ID], record.config.hostname)))


def settings_from_spec(record: ContainerRecord, spec: EndpointSpec) -> EndpointSettings:
    """What was asked for, from what the node was told."""
    own = {record.name, record.id[:_SHORT_ID], record.config.hostname}
    return EndpointSettings(
        ipv4_address=spec.ipv4_address,
        ipv6_address=spec.ipv6_address,
        aliases=tuple(name for name in spec.dns_names if name not in own),
        mac_address=spec.mac_address,
        gw_priority=spec.gateway_priority,
        network_id=spec.network_id,
    )
