"""What a network may be asked to be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api_service.overlays.slices import IpNetwork, OverlayPools, free_part, slice_prefix, slice_prefix_rule
from api_service.records.network import BRIDGE_DRIVER, MACVLAN_DRIVER, OVERLAY_DRIVER, GatewayMode, Macvlan, Subnet
from api_service.validation.addresses import parse_ip
from api_service.validation.ipam import IpamConfig, parse_subnet, validate_subnet, validate_within
from api_service.validation.network_mode import CONTAINER_PREFIX, DEFAULT, PREDEFINED
from common.errors import Violation

_IPAM_DRIVER = "default"
_PARENT = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with the NUL: linux/if.h


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRequest:
    """What is 0 is chosen. `slice_prefix_…` in bits."""

    port: int = 0
    slice_prefix_ipv4: int = 0
    slice_prefix_ipv6: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """As a request gives it. `bridge_given`: it says something of a bridge, `overlay_given`: of an overlay.
    `bridge_name` empty and `mtu` 0 are chosen by the node."""

    name: str
    driver: str = ""
    internal: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = True
    ipam_driver: str = ""
    ipam: Sequence[IpamConfig] = ()
    bridge_given: bool = False
    bridge_name: str = ""
    icc: bool = True
    mtu: int = 0
    host_binding_ipv4: str = ""
    gateway_mode_ipv4: GatewayMode = GatewayMode.NAT
    gateway_mode_ipv6: GatewayMode = GatewayMode.NAT
    macvlan: Macvlan | None = None
    overlay_given: bool = False
    overlay: OverlayRequest = field(default_factory=OverlayRequest)
    labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""


def validate_network(request: NetworkRequest) -> list[Violation]:
    """Every broken rule but the protocol's, in the order of the fields."""
    found = [
        *_validate_name(request.name),
        *_validate_driver(request.driver),
        *_validate_ipam_driver(request.ipam_driver),
    ]
    if not request.enable_ipv4 and not request.enable_ipv6:
        why = "a network needs addresses of one family at least; enable IPv4 or IPv6"
        found.append(Violation(field="enable_ipv4", description=why))
    versions: set[int] = set()
    for index, config in enumerate(request.ipam):
        found += _validate_ipam(config, request, f"ipam.config[{index}]", versions)
    found += _validate_options(request)
    if request.host_binding_ipv4 and not isinstance(parse_ip(request.host_binding_ipv4), ipaddress.IPv4Address):
        why = f"{request.host_binding_ipv4[:64]!r} is not an IPv4 address like 127.0.0.1"
        found.append(Violation(field="bridge.host_binding_ipv4", description=why))
    return found


def network_warnings(request: NetworkRequest) -> list[str]:
    """Of a valid request: what will not be as its fields might suggest."""
    found: list[str] = []
    if request.driver == MACVLAN_DRIVER and request.internal:
        found.append("internal leaves out the default route alone: the machines of the parent's link are reached.")
    if request.internal and request.host_binding_ipv4:
        found.append("bridge.host_binding_ipv4 has no effect: no port of an internal network is published.")
    for version, enabled in ((4, request.enable_ipv4), (6, request.enable_ipv6)):
        mode = request.gateway_mode_ipv4 if version == 4 else request.gateway_mode_ipv6
        if mode is not GatewayMode.NAT and not enabled:
            found.append(f"bridge.gateway_mode_ipv{version} has no effect: the network has no IPv{version} addresses.")
        elif mode is GatewayMode.ROUTED and request.internal:
            found.append(f"bridge.gateway_mode_ipv{version} has no effect: nothing leaves an internal network.")
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


def _validate_driver(driver: str) -> list[Violation]:
    if driver in ("", BRIDGE_DRIVER, MACVLAN_DRIVER, OVERLAY_DRIVER):
        return []
    if driver == "ipvlan":
        why = "'ipvlan' is not supported, whose containers share their parent's hardware address; use 'macvlan'"
        return [Violation(field="driver", description=f"{why}, which gives each its own, or 'bridge'")]
    why = f"{driver[:64]!r} is not supported; use 'bridge', 'macvlan' or 'overlay', or leave it empty for 'bridge'"
    return [Violation(field="driver", description=why)]


def _validate_ipam_driver(driver: str) -> list[Violation]:
    if driver in ("", _IPAM_DRIVER):
        return []
    why = f"{driver[:64]!r} is not supported; use {_IPAM_DRIVER!r} or leave it empty"
    return [Violation(field="ipam.driver", description=why)]


def _validate_options(request: NetworkRequest) -> list[Violation]:
    """Each driver has its own, and none of the other's."""
    found: list[Violation] = []
    if request.driver == OVERLAY_DRIVER:
        return _validate_overlay(request)
    if request.overlay_given:
        why = "is for the driver 'overlay'; leave it out, or ask for that driver"
        found.append(Violation(field="overlay", description=why))
    if request.driver != MACVLAN_DRIVER:
        if request.macvlan is not None:
            why = "is for the driver 'macvlan'; leave it out, or ask for that driver"
            found.append(Violation(field="macvlan", description=why))
        for version, mode in ((4, request.gateway_mode_ipv4), (6, request.gateway_mode_ipv6)):
            if mode is GatewayMode.ISOLATED and not request.internal:
                why = "isolated is for internal networks, which have no gateway; set internal, or choose another mode"
                found.append(Violation(field=f"bridge.gateway_mode_ipv{version}", description=why))
        return found
    if request.bridge_given:
        why = "is for the driver 'bridge'; leave it out, a macvlan network has no bridge"
        found.append(Violation(field="bridge", description=why))
    parent = request.macvlan.parent if request.macvlan is not None else ""
    if not _PARENT.fullmatch(parent):
        why = f"{parent[:64]!r} is not the name of an interface; give the node's whose link the containers join"
        found.append(Violation(field="macvlan.parent", description=f"{why}, for example 'eth0'"))
    given = {parsed.version for config in request.ipam if (parsed := parse_subnet(config.subnet)) is not None}
    for version, enabled in ((4, request.enable_ipv4), (6, request.enable_ipv6)):
        if enabled and version not in given:
            why = f"a macvlan network needs its link's IPv{version} subnet, which the node cannot choose; give it"
            found.append(Violation(field="ipam.config", description=f"{why}, or set enable_ipv{version} to false"))
    return found


def _validate_overlay(request: NetworkRequest) -> list[Violation]:
    found: list[Violation] = []
    for name, given in (("bridge", request.bridge_given), ("macvlan", request.macvlan is not None)):
        if given:
            why = f"is for the driver '{name}'; leave it out, an overlay network has its own, `overlay`"
            found.append(Violation(field=name, description=why))
    asked: dict[int, IpNetwork] = {}
    for index, config in enumerate(request.ipam):
        for field_name, value in (("gateway", config.gateway), ("ip_range", config.ip_range)):
            if value:
                why = "is each node's own on an overlay network, as its slice is; leave it out"
                found.append(Violation(field=f"ipam.config[{index}].{field_name}", description=why))
        if (subnet := parse_subnet(config.subnet)) is not None:
            asked[subnet.version] = subnet
    pools = OverlayPools()
    for version, prefix, pool in (
        (4, request.overlay.slice_prefix_ipv4, free_part(pools.ipv4, ())),
        (6, request.overlay.slice_prefix_ipv6, free_part(pools.ipv6, ())),
    ):
        subnet = asked.get(version, pool)
        if slice_prefix_rule(subnet, slice_prefix(subnet)):
            why = f"{subnet} is too small to be cut into slices, one a node; give a larger one"
            found.append(Violation(field="ipam.config", description=why))
        elif prefix and (why := slice_prefix_rule(subnet, prefix)):
            found.append(Violation(field=f"overlay.slice_prefix_ipv{version}", description=f"{prefix} {why}"))
    return found


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
