"""The ports that a container's node publishes: ranges taken apart, and with `publish_all_ports` what is exposed."""

from __future__ import annotations

from collections.abc import Iterator

from api_service.executor_client.container_spec import PublishedPort
from api_service.records.config import ContainerConfig, HostConfig
from api_service.validation.network_mode import HOST, NONE
from api_service.validation.port_bindings import MAX_PUBLISHED, expand_binding
from api_service.validation.ports import parse_port
from common.errors import Violation


def published_ports(config: ContainerConfig, host: HostConfig) -> tuple[PublishedPort, ...]:
    """Of a configuration that was validated and merged with the image's."""
    if host.network_mode in (HOST, NONE):
        return ()
    return (*_bound(host), *_exposed(config, host))


def validate_published_ports(
    config: ContainerConfig, host: HostConfig, field: str = "host_config.publish_all_ports"
) -> list[Violation]:
    """What only the image's exposed ports can break."""
    count = sum(1 for _ in _bound(host)) + sum(1 for _ in _exposed(config, host))
    if not host.publish_all_ports or count <= MAX_PUBLISHED:
        return []
    why = f"{count} ports would be published, of which {MAX_PUBLISHED} are allowed; name those that are wanted"
    return [Violation(field=field, description=why)]


def _bound(host: HostConfig) -> Iterator[PublishedPort]:
    for port, bindings in host.port_bindings.items():
        for binding in bindings:
            for one in expand_binding(parse_port(port), binding):
                yield PublishedPort(
                    host_ip=one.host_ip,
                    host_port=one.host_first,
                    host_port_last=one.host_last,
                    container_port=one.container_port,
                    protocol=one.protocol,
                )


def _exposed(config: ContainerConfig, host: HostConfig) -> Iterator[PublishedPort]:
    if not host.publish_all_ports:
        return
    bound = {(port.container_port, port.protocol) for port in _bound(host)}
    for exposed in config.exposed_ports:
        span = parse_port(exposed)
        for number in range(span.first, span.last + 1):
            if (number, span.protocol) not in bound:
                yield PublishedPort(
                    host_ip="", host_port=0, host_port_last=0, container_port=number, protocol=span.protocol
                )
