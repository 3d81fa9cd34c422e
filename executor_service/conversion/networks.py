"""Networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar

from slipway.executor.v1 import network_store_service_pb2 as pb

from common.errors import InvalidArgument, Violation
from executor_service.dns.elsewhere import ContainerElsewhere
from executor_service.network.network import (
    GatewayMode,
    MacvlanLink,
    MacvlanMode,
    Network,
    NetworkSpec,
    OverlayLink,
    Peer,
    Subnet,
    SubnetSpec,
    Underlay,
)

T = TypeVar("T")

_GATEWAY_MODES = {
    pb.GATEWAY_MODE_NAT: GatewayMode.NAT,
    pb.GATEWAY_MODE_ROUTED: GatewayMode.ROUTED,
    pb.GATEWAY_MODE_ISOLATED: GatewayMode.ISOLATED,
}
_MACVLAN_MODES = {
    pb.MACVLAN_MODE_BRIDGE: MacvlanMode.BRIDGE,
    pb.MACVLAN_MODE_VEPA: MacvlanMode.VEPA,
    pb.MACVLAN_MODE_PRIVATE: MacvlanMode.PRIVATE,
    pb.MACVLAN_MODE_PASSTHRU: MacvlanMode.PASSTHRU,
}
_MACVLAN_MODES_TO_PROTO = {mode: number for number, mode in _MACVLAN_MODES.items()}
_GATEWAY_MODES_TO_PROTO = {mode: number for number, mode in _GATEWAY_MODES.items()}


def spec_from_proto(message: pb.NetworkSpec) -> NetworkSpec:
    """Raises InvalidArgument, with every violation, for what is no address or no subnet, and for an unknown mode."""
    broken: list[Violation] = []
    spec = NetworkSpec(
        id=message.id,
        name=message.name,
        macvlan=_macvlan(message.macvlan, broken) if message.HasField("macvlan") else None,
        overlay=_overlay(message.overlay, broken) if message.HasField("overlay") else None,
        underlay=_underlay(message.overlay.underlay, "spec.overlay.underlay", broken)
        if message.HasField("overlay")
        else None,
        ipv4=_subnet(message.ipv4, "spec.ipv4", broken) if message.HasField("ipv4") else None,
        ipv6=_subnet(message.ipv6, "spec.ipv6", broken) if message.HasField("ipv6") else None,
        bridge=message.bridge,
        mtu=message.mtu,
        internal=message.internal,
        icc=message.icc,
    )
    if broken:
        raise InvalidArgument(violations=broken)
    return spec


def _macvlan(message: pb.MacvlanLink, broken: list[Violation]) -> MacvlanLink:
    if message.mode not in _MACVLAN_MODES:
        broken.append(Violation(field="spec.macvlan.mode", description=f"{message.mode} is not known"))
    return MacvlanLink(parent=message.parent, mode=_MACVLAN_MODES.get(message.mode, MacvlanMode.BRIDGE))


def underlay_from_proto(message: pb.OverlayUnderlay) -> Underlay:
    """Raises InvalidArgument with every violation."""
    broken: list[Violation] = []
    underlay = _underlay(message, "underlay", broken)
    if broken or underlay is None:
        raise InvalidArgument(violations=broken)
    return underlay


def containers_from_proto(messages: Iterable[pb.ContainerElsewhere]) -> tuple[ContainerElsewhere, ...]:
    return tuple(
        ContainerElsewhere(id=one.container_id, names=tuple(one.names), addresses=tuple(one.addresses))
        for one in messages
    )


def _overlay(message: pb.OverlayLink, broken: list[Violation]) -> OverlayLink:
    return OverlayLink(
        vni=message.vni,
        port=message.port,
        ipv4=_parsed(IPv4Network, message.ipv4, "spec.overlay.ipv4", broken),
        ipv6=_parsed(IPv6Network, message.ipv6, "spec.overlay.ipv6", broken),
    )


def _underlay(message: pb.OverlayUnderlay, field: str, broken: list[Violation]) -> Underlay | None:
    local = _parsed(ip_address, message.local, f"{field}.local", broken)
    if local is None:
        if not message.local:
            broken.append(Violation(field=f"{field}.local", description="is needed: what other nodes send to"))
        return None
    peers = (_peer(one, f"{field}.peers[{number}]", broken) for number, one in enumerate(message.peers))
    return Underlay(local=local, peers=tuple(peer for peer in peers if peer is not None), version=message.version)


def _peer(message: pb.OverlayPeer, field: str, broken: list[Violation]) -> Peer | None:
    address = _parsed(ip_address, message.address, f"{field}.address", broken)
    if address is None:
        if not message.address:
            broken.append(Violation(field=f"{field}.address", description="is needed: what it sends with"))
        return None
    return Peer(
        address=address,
        ipv4=_parsed(IPv4Network, message.ipv4, f"{field}.ipv4", broken),
        ipv6=_parsed(IPv6Network, message.ipv6, f"{field}.ipv6", broken),
    )


def _subnet(message: pb.NetworkSubnet, field: str, broken: list[Violation]) -> SubnetSpec:
    if message.gateway_mode not in _GATEWAY_MODES:
        broken.append(Violation(field=f"{field}.gateway_mode", description=f"{message.gateway_mode} is not known"))
    reserved = (_parsed(ip_address, text, f"{field}.reserved", broken) for text in message.reserved)
    return SubnetSpec(
        subnet=_parsed(ip_network, message.subnet, f"{field}.subnet", broken),
        gateway=_parsed(ip_address, message.gateway, f"{field}.gateway", broken),
        ip_range=_parsed(ip_network, message.ip_range, f"{field}.ip_range", broken),
        reserved=tuple(address for address in reserved if address is not None),
        gateway_mode=_GATEWAY_MODES.get(message.gateway_mode, GatewayMode.NAT),
    )


def _parsed(parse: Callable[[str], T], text: str, field: str, broken: list[Violation]) -> T | None:
    try:
        return parse(text) if text else None
    except ValueError as error:
        broken.append(Violation(field=field, description=str(error)))
        return None


def network_to_proto(network: Network) -> pb.StoredNetwork:
    return pb.StoredNetwork(
        spec=pb.NetworkSpec(
            id=network.id,
            name=network.name,
            macvlan=_macvlan_to_proto(network.macvlan) if network.macvlan is not None else None,
            overlay=_overlay_to_proto(network.overlay, network.underlay) if network.overlay is not None else None,
            ipv4=_subnet_to_proto(network.ipv4) if network.ipv4 is not None else None,
            ipv6=_subnet_to_proto(network.ipv6) if network.ipv6 is not None else None,
            bridge=network.bridge,
            mtu=network.mtu,
            internal=network.internal,
            icc=network.icc,
        )
    )


def _macvlan_to_proto(link: MacvlanLink) -> pb.MacvlanLink:
    return pb.MacvlanLink(parent=link.parent, mode=_MACVLAN_MODES_TO_PROTO[link.mode])


def _overlay_to_proto(link: OverlayLink, underlay: Underlay | None) -> pb.OverlayLink:
    return pb.OverlayLink(
        vni=link.vni,
        port=link.port,
        ipv4=_text(link.ipv4),
        ipv6=_text(link.ipv6),
        underlay=_underlay_to_proto(underlay) if underlay is not None else None,
    )


def _underlay_to_proto(underlay: Underlay) -> pb.OverlayUnderlay:
    return pb.OverlayUnderlay(
        local=str(underlay.local),
        peers=[
            pb.OverlayPeer(address=str(peer.address), ipv4=_text(peer.ipv4), ipv6=_text(peer.ipv6))
            for peer in underlay.peers
        ],
        version=underlay.version,
    )


def _text(subnet: IPv4Network | IPv6Network | None) -> str:
    return str(subnet) if subnet is not None else ""


def _subnet_to_proto(subnet: Subnet) -> pb.NetworkSubnet:
    return pb.NetworkSubnet(
        subnet=str(subnet.subnet),
        gateway=str(subnet.gateway),
        ip_range=str(subnet.ip_range) if subnet.ip_range != subnet.subnet else "",
        reserved=[str(address) for address in subnet.reserved],
        gateway_mode=_GATEWAY_MODES_TO_PROTO[subnet.gateway_mode],
    )
