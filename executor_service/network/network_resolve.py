"""Choosing what a network's specification leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from common.errors import ResourceExhausted
from executor_service.network.config import NETWORK_PREFIX, BridgeConfig
from executor_service.network.host_bridge import subnets_in_use
from executor_service.network.ipam import free_subnet
from executor_service.network.network import Network, NetworkSpec, Subnet, SubnetSpec, resolve_subnet

_BRIDGE_PREFIX, _BRIDGE_ID_LENGTH = "br-", 12  # Docker's names


def resolve_network(spec: NetworkSpec, config: BridgeConfig, others: Iterable[Network]) -> Network:
    """A subnet that is chosen overlaps none of `others`, and none that the host uses. Blocks. Raises
    ResourceExhausted."""
    used = [span for network in others for span in network.spans]
    own_mtu = spec.macvlan is None and spec.overlay is None
    return Network(
        id=spec.id,
        name=spec.name,
        macvlan=spec.macvlan,
        overlay=spec.overlay,
        underlay=spec.underlay,
        bridge="" if spec.macvlan else spec.bridge or f"{_BRIDGE_PREFIX}{spec.id[:_BRIDGE_ID_LENGTH]}",
        ipv4=_subnet(spec.ipv4, config.ipv4_base, used),
        ipv6=_subnet(spec.ipv6, config.ipv6_base, used),
        mtu=spec.mtu or (own_mtu and config.mtu) or 0,
        internal=spec.internal,
        icc=spec.icc,
    )


def _subnet(
    spec: SubnetSpec | None, base: IPv4Network | IPv6Network, used: Sequence[IPv4Network | IPv6Network]
) -> Subnet | None:
    if spec is None:
        return None
    if spec.subnet is not None:
        return resolve_subnet(spec, spec.subnet)
    chosen = free_subnet(base, prefix_length=NETWORK_PREFIX[base.version], taken=[*used, *subnets_in_use()])
    if chosen is None:
        raise ResourceExhausted(
            f"no /{NETWORK_PREFIX[base.version]} of {base} is free for another network; remove networks that are "
            f"no longer needed, give a subnet, or configure networks_ipv{base.version}",
            reason="SUBNETS_EXHAUSTED",
        )
    return resolve_subnet(spec, chosen)
