"""An overlay network's subnets are cut into slices of one size, one a node: the arithmetic of it, pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from api_service.executor_client.networks import OverlayLink, OverlayPeer, StoredNetwork, Underlay
from api_service.records.network import NetworkRecord, Overlay, Slice, Subnet
from common.errors import FailedPrecondition, ResourceExhausted

IpNetwork = IPv4Network | IPv6Network

DEFAULT_PORT = 4789  # IANA's for VXLAN: RFC 7348
_POOL_IPV4, _POOL_IPV6 = IPv4Network("10.64.0.0/10"), IPv6Network("fd53:6c69:7000::/36")
_USUAL_SLICE = {4: 24, 6: 64}  # bits of prefix, by IP version
_USUAL_PART = {4: 18, 6: 48}  # of a pool that a network gets which does not ask for a subnet
_SMALLEST_SLICE = {4: 30, 6: 126}  # a gateway and one container
_FEWEST_BITS = 4  # a subnet without room for usual slices is cut into 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayPools:
    """What overlay networks get their subnets of that ask for none: a /18 and a /48 each."""

    ipv4: IPv4Network = _POOL_IPV4
    ipv6: IPv6Network = _POOL_IPV6


def slice_prefix(subnet: IpNetwork) -> int:
    """Bits of prefix of its slices, if nothing else is asked for."""
    usual, smallest = _USUAL_SLICE[subnet.version], _SMALLEST_SLICE[subnet.version]
    return min(max(usual, subnet.prefixlen + _FEWEST_BITS), smallest)


def slice_prefix_rule(subnet: IpNetwork, prefix: int) -> str:
    """Why slices of a subnet cannot have this prefix; empty when they can."""
    smallest = _SMALLEST_SLICE[subnet.version]
    if not subnet.prefixlen < prefix <= smallest:
        return f"must be {subnet.prefixlen + 1} to {smallest}: less than {subnet}, with a gateway and one container"
    return ""


def free_part(pool: IpNetwork, taken: Iterable[IpNetwork]) -> IpNetwork:
    """The lowest part of a pool that overlaps nothing that is taken. Raises ResourceExhausted."""
    others = [one for one in taken if one.version == pool.version]
    length = max(_USUAL_PART[pool.version], pool.prefixlen)
    for part in pool.subnets(new_prefix=length):
        if not any(part.overlaps(other) for other in others):
            return part
    raise ResourceExhausted(
        f"no /{length} of {pool} is free for another overlay network; remove networks that are no longer needed, or "
        "give a subnet",
        reason="SUBNETS_EXHAUSTED",
    )


def within_slice(address: str, part: Slice) -> bool:
    """Whether it is an address, and of that slice."""
    try:
        plain = ip_address(address)
    except ValueError:
        return False
    subnet = part.ipv4 if plain.version == 4 else part.ipv6
    return bool(subnet) and plain in ip_network(subnet)


def with_slice(network: NetworkRecord, *, node: str, address: str) -> NetworkRecord:
    """With the lowest free slice for the node, or the one that it has, at this address. Raises ResourceExhausted, and
    FailedPrecondition when the nodes' addresses are of two families, when it is another node's, and when it is none:
    what one node says of itself must not keep the others from each other."""
    overlay = _overlay(network)
    own = overlay.slices.get(node)
    if own is not None and own.address == address:
        return network
    try:
        version = ip_address(address).version
    except ValueError as error:
        why = f"node {node!r} is reached at {address[:64]!r}, which is no IP address; give its executor another"
        raise _unreachable(network, f"{why} overlay_address") from error
    for name, other in overlay.slices.items():
        both = f"node {node!r} is reached at {address} and node {name!r} at {other.address}"
        if name != node and other.address == address:
            raise _unreachable(network, f"{both}; give each executor an overlay_address of its own")
        if name != node and ip_address(other.address).version != version:
            raise _unreachable(network, f"{both}; give both executors an overlay_address of one family")
    mine = dataclasses.replace(own, address=address) if own is not None else _free_slice(network, overlay, address)
    slices = {**overlay.slices, node: mine}
    return _with(network, dataclasses.replace(overlay, slices=slices, version=overlay.version + 1))


def with_made(network: NetworkRecord, *, node: str) -> NetworkRecord:
    """The node has the network now."""
    overlay = _overlay(network)
    own = overlay.slices.get(node)
    if own is None:
        return network
    return _with(
        network, dataclasses.replace(overlay, slices={**overlay.slices, node: dataclasses.replace(own, made=True)})
    )


def without_slice(network: NetworkRecord, *, node: str) -> NetworkRecord:
    """The node is none of the network's any more."""
    overlay = _overlay(network)
    left = {name: one for name, one in overlay.slices.items() if name != node}
    if len(left) == len(overlay.slices):
        return network
    return _with(network, dataclasses.replace(overlay, slices=left, version=overlay.version + 1))


def unmade(network: NetworkRecord) -> NetworkRecord:
    """On some node it may be gone: each is asked for it again before it is used there."""
    overlay = _overlay(network)
    slices = {name: dataclasses.replace(one, made=False) for name, one in overlay.slices.items()}
    return _with(network, dataclasses.replace(overlay, slices=slices))


def on_node(network: NetworkRecord, node: str) -> StoredNetwork:
    """What the node is asked for, which must have a slice."""
    overlay = _overlay(network)
    own = overlay.slices[node]
    return StoredNetwork(
        id=network.id,
        name=network.name,
        ipv4=_part(network.ipv4, own.ipv4),
        ipv6=_part(network.ipv6, own.ipv6),
        mtu=network.mtu,
        internal=network.internal,
        icc=network.icc,
        overlay=OverlayLink(
            vni=overlay.vni,
            port=overlay.port,
            ipv4=network.ipv4.subnet if network.ipv4 is not None else "",
            ipv6=network.ipv6.subnet if network.ipv6 is not None else "",
            underlay=underlay_of(overlay, node),
        ),
    )


def underlay_of(overlay: Overlay, node: str) -> Underlay:
    """As this node, which must have a slice, sees it."""
    return Underlay(
        local=overlay.slices[node].address,
        peers=tuple(
            OverlayPeer(address=one.address, ipv4=one.ipv4, ipv6=one.ipv6)
            for name, one in sorted(overlay.slices.items())
            if name != node
        ),
        version=overlay.version,
    )


def _free_slice(network: NetworkRecord, overlay: Overlay, address: str) -> Slice:
    taken = {part for one in overlay.slices.values() for part in (one.ipv4, one.ipv6) if part}
    for ipv4, ipv6 in _pairs(network, overlay):
        if not {ipv4, ipv6} & taken:
            return Slice(address=address, ipv4=ipv4, ipv6=ipv6)
    raise ResourceExhausted(
        f"network {network.name!r} has no slice left: {len(overlay.slices)} nodes have one; make another network with "
        "a larger subnet or smaller slices, or remove nodes that are gone",
        reason="SLICES_EXHAUSTED",
        metadata={"network": network.name},
    )


def _pairs(network: NetworkRecord, overlay: Overlay) -> Iterator[tuple[str, str]]:
    """The slices of both families, side by side; empty where the network has none of the family."""
    ipv4, ipv6 = network.ipv4, network.ipv6
    fours = ip_network(ipv4.subnet).subnets(new_prefix=overlay.slice_prefix_ipv4) if ipv4 is not None else None
    sixes = ip_network(ipv6.subnet).subnets(new_prefix=overlay.slice_prefix_ipv6) if ipv6 is not None else None
    if fours is not None and sixes is not None:
        yield from ((str(four), str(six)) for four, six in zip(fours, sixes, strict=False))
    elif fours is not None:
        yield from ((str(four), "") for four in fours)
    elif sixes is not None:
        yield from (("", str(six)) for six in sixes)


def _part(whole: Subnet | None, part: str) -> Subnet | None:
    """Its gateway is the first address, which the node knows; of the auxiliary addresses it gets those in its part."""
    if whole is None:
        return None
    within = ip_network(part)
    aux = {name: address for name, address in whole.aux_addresses.items() if ip_address(address) in within}
    return Subnet(subnet=part, aux_addresses=aux, gateway_mode=whole.gateway_mode, configured=whole.configured)


def _unreachable(network: NetworkRecord, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"network {network.name!r}: {why}",
        resource_type="network",
        resource_name=network.name,
        reason="UNDERLAY_UNAVAILABLE",
    )


def _overlay(network: NetworkRecord) -> Overlay:
    assert network.overlay is not None
    return network.overlay


def _with(network: NetworkRecord, overlay: Overlay) -> NetworkRecord:
    return dataclasses.replace(network, overlay=overlay)
