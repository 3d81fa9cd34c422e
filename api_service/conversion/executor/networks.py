"""Networks."""

from __future__ import annotations

from slipway.executor.v1 import network_store_service_pb2 as pb2

from api_service.executor_client.networks import ContainerElsewhere, OverlayLink, StoredNetwork, Underlay
from api_service.records.network import GatewayMode, Macvlan, MacvlanMode, Subnet

_GATEWAY_MODES = {
    GatewayMode.NAT: pb2.GATEWAY_MODE_NAT,
    GatewayMode.ROUTED: pb2.GATEWAY_MODE_ROUTED,
    GatewayMode.ISOLATED: pb2.GATEWAY_MODE_ISOLATED,
}
_MACVLAN_MODES = {
    MacvlanMode.BRIDGE: pb2.MACVLAN_MODE_BRIDGE,
    MacvlanMode.VEPA: pb2.MACVLAN_MODE_VEPA,
    MacvlanMode.PRIVATE: pb2.MACVLAN_MODE_PRIVATE,
    MacvlanMode.PASSTHRU: pb2.MACVLAN_MODE_PASSTHRU,
}
_MACVLAN_MODES_FROM_PROTO = {number: mode for mode, number in _MACVLAN_MODES.items()}
_GATEWAY_MODES_FROM_PROTO = {number: mode for mode, number in _GATEWAY_MODES.items()}


def network_to_proto(network: StoredNetwork) -> pb2.NetworkSpec:
    return pb2.NetworkSpec(
        id=network.id,
        name=network.name,
        ipv4=_subnet_to_proto(network.ipv4) if network.ipv4 is not None else None,
        ipv6=_subnet_to_proto(network.ipv6) if network.ipv6 is not None else None,
        bridge=network.bridge,
        mtu=network.mtu,
        internal=network.internal,
        icc=network.icc,
        macvlan=_macvlan_to_proto(network.macvlan) if network.macvlan is not None else None,
        overlay=_overlay_to_proto(network.overlay) if network.overlay is not None else None,
    )


def network_from_proto(message: pb2.StoredNetwork) -> StoredNetwork:
    spec = message.spec
    return StoredNetwork(
        id=spec.id,
        name=spec.name,
        ipv4=_subnet_from_proto(spec.ipv4) if spec.HasField("ipv4") else None,
        ipv6=_subnet_from_proto(spec.ipv6) if spec.HasField("ipv6") else None,
        bridge=spec.bridge,
        mtu=spec.mtu,
        internal=spec.internal,
        icc=spec.icc,
        macvlan=_macvlan_from_proto(spec.macvlan) if spec.HasField("macvlan") else None,
    )


def underlay_to_proto(underlay: Underlay) -> pb2.OverlayUnderlay:
    return pb2.OverlayUnderlay(
        local=underlay.local,
        peers=[pb2.OverlayPeer(address=one.address, ipv4=one.ipv4, ipv6=one.ipv6) for one in underlay.peers],
        version=underlay.version,
    )


def container_elsewhere_to_proto(container: ContainerElsewhere) -> pb2.ContainerElsewhere:
    return pb2.ContainerElsewhere(container_id=container.id, names=container.names, addresses=container.addresses)


def _overlay_to_proto(link: OverlayLink) -> pb2.OverlayLink:
    return pb2.OverlayLink(
        vni=link.vni, port=link.port, ipv4=link.ipv4, ipv6=link.ipv6, underlay=underlay_to_proto(link.underlay)
    )


def _macvlan_to_proto(macvlan: Macvlan) -> pb2.MacvlanLink:
    return pb2.MacvlanLink(parent=macvlan.parent, mode=_MACVLAN_MODES[macvlan.mode])


def _macvlan_from_proto(message: pb2.MacvlanLink) -> Macvlan:
    mode = _MACVLAN_MODES_FROM_PROTO.get(message.mode, MacvlanMode.BRIDGE)
    return Macvlan(parent=message.parent, mode=mode)


def _subnet_to_proto(subnet: Subnet) -> pb2.NetworkSubnet:
    return pb2.NetworkSubnet(
        subnet=subnet.subnet,
        gateway=subnet.gateway,
        ip_range=subnet.ip_range,
        reserved=list(subnet.aux_addresses.values()),
        gateway_mode=_GATEWAY_MODES[subnet.gateway_mode],
    )


def _subnet_from_proto(message: pb2.NetworkSubnet) -> Subnet:
    """Without the names of the auxiliary addresses, which the node does not know."""
    return Subnet(
        subnet=message.subnet,
        gateway=message.gateway,
        ip_range=message.ip_range,
        gateway_mode=_GATEWAY_MODES_FROM_PROTO.get(message.gateway_mode, GatewayMode.NAT),
    )
