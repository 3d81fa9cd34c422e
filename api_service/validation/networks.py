"""What a network may be asked to be."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api_service.records.network import BRIDGE_DRIVER, GatewayMode, Subnet
from api_service.validation.addresses import parse_ip
from api_service.validation.ipam import IpamConfig, parse_subnet, validate_subnet, validate_within
from api_service.validation.network_mode import CONTAINER_PREFIX, DEFAULT, PREDEFINED
from common.errors import Violation

_IPAM_DRIVER = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """As a request gives it. `bridge_name` empty and `mtu` 0 are chosen by the node."""

    name: str
    driver: str = ""
    internal: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = True
    ipam_driver: str = ""
    ipam: Sequence[IpamConfig] = ()
    bridge_name: str = ""
    icc: bool = True
    mtu: int = 0
    host_binding_ipv4: str = ""
    gateway_mode_ipv4: GatewayMode = GatewayMode.NAT
    gateway_mode_ipv6: GatewayMode = GatewayMode.NAT
    labels: Mapping[str, str] = field(default_factory=dict)


def validate_network(request: NetworkRequest) -> list[Violation]:
    """Every broken rule but the protocol's, in the order of the fields."""
    found = [
        *_validate_name(request.name),
        *_validate_driver(request.driver, "driver", only=BRIDGE_DRIVER),
        *_validate_driver(request.ipam_driver, "ipam.driver", only=_IPAM_DRIVER),
    ]
    if not request.enable_ipv4 and not request.enable_ipv6:
        why = "a network needs addresses of one family at least; enable IPv4 or IPv6"
        found.append(Violation(field="enable_ipv4", description=why))
    versions: set[int] = set()
    for index, config in enumerate(request.ipam):
        found += _validate_ipam(config, request, f"ipam.config[{index}]", versions)
    if request.host_binding_ipv4 and not isinstance(parse_ip(request.host_binding_ipv4), ipaddress.IPv4Address):
        why = f"{request.host_binding_ipv4[:64]!r} is not an IPv4 address like 127.0.0.1"
        found.append(Violation(field="bridge.host_binding_ipv4", description=why))
    return found


def subnets(request: NetworkRequest) -> tuple[Subnet | None, Subnet | None]:
    """IPv4 and IPv6 of a valid request."""
    return (
        _subnet(request, 4, request.gateway_mode_ipv4) if request.enable_ipv4 else None,
        _subnet(request, 6, request.gateway_mode_ipv6) if request.enable_ipv6 else None,
    )


def _subnet(request: NetworkRequest, version: int, mode: GatewayMode) -> Subnet:
    for config in request.ipam:
        if config.subnet and ipaddress.ip_network(config.subnet).version == version:
            return Subnet(
                subnet=str(ipaddress.ip_network(config.subnet)),
                gateway=config.gateway,
                ip_range=config.ip_range,
                aux_addresses=dict(config.aux_addresses),
                gateway_mode=mode,
                configured=True,
            )
    return Subnet(gateway_mode=mode)


def _validate_name(name: str) -> list[Violation]:
    if name in PREDEFINED or name == DEFAULT:
        why = f"{name!r} is the name of a network that is always there; choose another name"
        return [Violation(field="name", description=why)]
    if name.startswith(CONTAINER_PREFIX):
        return [Violation(field="name", description=f"must not begin with {CONTAINER_PREFIX!r}; choose another name")]
    return []


def _validate_driver(driver: str, field: str, *, only: str) -> list[Violation]:
    if driver in ("", only):
        return []
    return [Violation(field=field, description=f"{driver[:64]!r} is not supported; use {only!r} or leave it empty")]


def _validate_ipam(config: IpamConfig, request: NetworkRequest, path: str, versions: set[int]) -> list[Violation]:
    if not config.subnet:
        why = "a range, a gateway and auxiliary addresses need a subnet; give it, or leave the entry out"
        return [Violation(field=f"{path}.subnet", description=why)]
    subnet = parse_subnet(config.subnet)
    if subnet is None:
        why = f"{config.subnet[:64]!r} is not a subnet like 172.20.0.0/24, with all bits behind the prefix zero"
        return [Violation(field=f"{path}.subnet", description=why)]
    found: list[Violation] = []
    enabled = request.enable_ipv4 if subnet.version == 4 else request.enable_ipv6
    if subnet.version in versions:
        found.append(Violation(field=f"{path}.subnet", description=f"is a second IPv{subnet.version} subnet; give one"))
    elif not enabled:
        why = f"{subnet} is given though enable_ipv{subnet.version} is false; leave one of them out"
        found.append(Violation(field=f"{path}.subnet", description=why))
    versions.add(subnet.version)
    return [*found, *validate_subnet(subnet, f"{path}.subnet"), *validate_within(config, subnet, path)]
