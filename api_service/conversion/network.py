"""Between the messages about networks and the records."""

from __future__ import annotations

from slipway.v1 import network_service_pb2 as pb2

from api_service.conversion.times import timestamp
from api_service.operations.network_list import NetworkFilter, ShownNetwork
from api_service.records.container import ContainerRecord, ObservedEndpoint
from api_service.records.network import (
    BRIDGE_DRIVER,
    MACVLAN_DRIVER,
    OVERLAY_DRIVER,
    GatewayMode,
    Macvlan,
    MacvlanMode,
    NetworkRecord,
    Overlay,
    Subnet,
)
from api_service.validation.ipam import IpamConfig
from api_service.validation.networks import NetworkRequest, OverlayRequest

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


def network_request_from_proto(message: pb2.CreateNetworkRequest) -> NetworkRequest:
    bridge, overlay = message.bridge, message.overlay
    options = overlay if message.driver == OVERLAY_DRIVER else bridge
    return NetworkRequest(
        name=message.name,
        driver=message.driver,
        internal=message.internal,
        enable_ipv4=message.enable_ipv4 if message.HasField("enable_ipv4") else True,
        enable_ipv6=message.enable_ipv6 if message.HasField("enable_ipv6") else _has_ipv6(message),
        ipam_driver=message.ipam.driver,
        ipam=[
            IpamConfig(
                subnet=config.subnet,
                ip_range=config.ip_range,
                gateway=config.gateway,
                aux_addresses=dict(config.aux_addresses),
            )
            for config in message.ipam.config
        ],
        bridge_given=message.HasField("bridge"),
        bridge_name=bridge.name,
        icc=options.enable_icc if options.HasField("enable_icc") else True,
        mtu=options.mtu,
        host_binding_ipv4=bridge.host_binding_ipv4,
        gateway_mode_ipv4=_GATEWAY_MODES_FROM_PROTO.get(bridge.gateway_mode_ipv4, GatewayMode.NAT),
        gateway_mode_ipv6=_GATEWAY_MODES_FROM_PROTO.get(bridge.gateway_mode_ipv6, GatewayMode.NAT),
        macvlan=_macvlan_from_proto(message.macvlan) if message.HasField("macvlan") else None,
        overlay_given=message.HasField("overlay"),
        overlay=OverlayRequest(
            port=overlay.port,
            slice_prefix_ipv4=overlay.slice_prefix_ipv4,
            slice_prefix_ipv6=overlay.slice_prefix_ipv6,
        ),
        labels=dict(message.labels),
        node=message.node,
    )


def _has_ipv6(message: pb2.CreateNetworkRequest) -> bool:
    """What the protocol says of a field that is not given."""
    return message.driver != MACVLAN_DRIVER or any(":" in config.subnet for config in message.ipam.config)


def _macvlan_from_proto(message: pb2.MacvlanOptions) -> Macvlan:
    mode = _MACVLAN_MODES_FROM_PROTO.get(message.mode, MacvlanMode.BRIDGE)
    return Macvlan(parent=message.parent, mode=mode)


def network_filter_from_proto(message: pb2.ListNetworksRequest) -> NetworkFilter:
    return NetworkFilter(
        ids=tuple(message.id),
        names=tuple(message.name),
        labels=tuple(message.label),
        drivers=tuple(message.driver),
        dangling=message.dangling if message.HasField("dangling") else None,
    )


def shown_network_to_proto(shown: ShownNetwork) -> pb2.Network:
    message = network_to_proto(shown.network)
    for record in shown.containers:
        if not record.network.endpoints:  # on `host` or `none`, where it has no addresses of its own
            message.containers[record.id].name = record.name
        for endpoint in record.network.endpoints:
            if endpoint.network_id == shown.network.id:
                message.containers[record.id].CopyFrom(_endpoint_to_proto(record, endpoint))
    return message


def network_to_proto(network: NetworkRecord) -> pb2.Network:
    subnets = [subnet for subnet in (network.ipv4, network.ipv6) if subnet is not None]
    return pb2.Network(
        id=network.id,
        name=network.name,
        driver=network.driver,
        created_at=timestamp(network.created_at) if network.created_at else None,
        node=network.node,
        internal=network.internal,
        enable_ipv4=network.ipv4 is not None,
        enable_ipv6=network.ipv6 is not None,
        ipam=pb2.Ipam(driver="default", config=[_ipam_to_proto(subnet) for subnet in subnets]) if subnets else None,
        bridge=_bridge_to_proto(network) if network.driver == BRIDGE_DRIVER else None,
        macvlan=_macvlan_to_proto(network.macvlan) if network.macvlan is not None else None,
        overlay=_overlay_to_proto(network, network.overlay) if network.overlay is not None else None,
        labels=dict(network.labels),
    )


def _ipam_to_proto(subnet: Subnet) -> pb2.IpamConfig:
    return pb2.IpamConfig(
        subnet=subnet.subnet,
        ip_range=subnet.ip_range,
        gateway=subnet.gateway,
        aux_addresses=dict(subnet.aux_addresses),
    )


def _bridge_to_proto(network: NetworkRecord) -> pb2.BridgeOptions:
    ipv4, ipv6 = network.ipv4 or Subnet(), network.ipv6 or Subnet()
    return pb2.BridgeOptions(
        name=network.bridge,
        enable_icc=network.icc,
        mtu=network.mtu,
        host_binding_ipv4=network.host_binding_ipv4,
        gateway_mode_ipv4=_GATEWAY_MODES[ipv4.gateway_mode],
        gateway_mode_ipv6=_GATEWAY_MODES[ipv6.gateway_mode],
    )


def _macvlan_to_proto(macvlan: Macvlan) -> pb2.MacvlanOptions:
    return pb2.MacvlanOptions(parent=macvlan.parent, mode=_MACVLAN_MODES[macvlan.mode])


def _overlay_to_proto(network: NetworkRecord, overlay: Overlay) -> pb2.Overlay:
    return pb2.Overlay(
        options=pb2.OverlayOptions(
            enable_icc=network.icc,
            mtu=network.mtu,
            port=overlay.port,
            slice_prefix_ipv4=overlay.slice_prefix_ipv4,
            slice_prefix_ipv6=overlay.slice_prefix_ipv6,
        ),
        vni=overlay.vni,
        slices={
            node: pb2.OverlaySlice(address=one.address, ipv4=one.ipv4, ipv6=one.ipv6)
            for node, one in overlay.slices.items()
        },
    )


def _endpoint_to_proto(record: ContainerRecord, endpoint: ObservedEndpoint) -> pb2.NetworkEndpoint:
    ipv4, ipv6 = endpoint.ip_address, endpoint.global_ipv6_address
    return pb2.NetworkEndpoint(
        name=record.name,
        mac_address=endpoint.mac_address,
        ipv4_address=f"{ipv4}/{endpoint.ip_prefix_len}" if ipv4 else "",
        ipv6_address=f"{ipv6}/{endpoint.global_ipv6_prefix_len}" if ipv6 else "",
    )
