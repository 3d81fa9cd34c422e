"""What an overlay network may be on this node, which other nodes it has, and what its containers there are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from common.errors import InvalidArgument, Violation
from common.set_apart import set_apart
from executor_service.dns.elsewhere import ContainerElsewhere
from executor_service.host_errors import host_errors
from executor_service.network.network import GatewayMode, NetworkSpec, OverlayLink, Underlay
from executor_service.network.refusals import no_such_network
from executor_service.node import Node

Slice = IPv4Network | IPv6Network

MOST_PEERS = 4096
MOST_CONTAINERS = 20_000  # of one network on other nodes
_MOST_NAMES, _LONGEST_NAME = 1000, 255
_MOST_ADDRESSES = 2
_VNIS = range(1, 1 << 24)  # RFC 7348
_PORTS = range(1, 1 << 16)


async def overlay_peers_set(node: Node, network_id: str, underlay: Underlay) -> None:
    """Idempotent. Raises InvalidArgument with every violation, FailedPrecondition when there is no such network."""
    network = node.seams.networks.find(network_id)
    if network is None or network.overlay is None:
        raise no_such_network(network_id, kind="overlay network")
    own = [subnet.subnet for subnet in network.subnets]
    if broken := [
        Violation(field=f"underlay.{field}", description=text)
        for field, text in _underlay(underlay, network.overlay, own)
    ]:
        raise InvalidArgument(violations=broken)
    with host_errors(f"network {network.name!r}"):
        await node.seams.networks.set_underlay(network_id, underlay)


async def names_elsewhere_set(
    node: Node, network_id: str, containers: Sequence[ContainerElsewhere], *, version: int, renumbered: bool
) -> int:
    """The version of what is known then. Idempotent. Raises InvalidArgument with every violation, FailedPrecondition
    when there is no such network."""
    network = node.seams.networks.find(network_id)
    if network is None:
        raise no_such_network(network_id, kind="overlay network")
    if broken := [Violation(field=f"containers{field}", description=text) for field, text in _containers(containers)]:
        raise InvalidArgument(violations=broken)
    with host_errors(f"names of network {network.name!r}"):
        return await node.seams.names_elsewhere.set(network, containers, version=version, renumbered=renumbered)


def overlay_rules(spec: NetworkSpec, link: OverlayLink) -> Iterator[tuple[str, str]]:
    """Of a network that is to be made: (field, what is wrong)."""
    if spec.macvlan is not None:
        yield "overlay", "a network is macvlan or overlay, not both"
    if link.vni not in _VNIS:
        yield "overlay.vni", f"{link.vni} must be {_VNIS[0]} to {_VNIS[-1]}"
    if link.port not in _PORTS:
        yield "overlay.port", f"{link.port} must be {_PORTS[0]} to {_PORTS[-1]}"
    for version, subnet in ((4, spec.ipv4), (6, spec.ipv6)):
        span = link.span(version)
        if (subnet is None) != (span is None):
            yield f"overlay.ipv{version}", "the whole and this node's slice go together"
        if subnet is None or span is None:
            continue
        for why in set_apart(span):
            yield f"overlay.ipv{version}", why
        if subnet.subnet is None or not _lies_in(subnet.subnet, span):
            yield f"ipv{version}.subnet", f"must be this node's slice of {span}"
        if subnet.gateway is not None or subnet.ip_range is not None:
            yield f"ipv{version}.gateway", "is the slice's first address on every node, and containers get all others"
        if subnet.gateway_mode is not GatewayMode.NAT:
            yield f"ipv{version}.gateway_mode", "must be NAT: an overlay network has no other"
    if spec.underlay is not None:
        own = [subnet.subnet for subnet in (spec.ipv4, spec.ipv6) if subnet is not None and subnet.subnet is not None]
        for field, text in _underlay(spec.underlay, link, own):
            yield f"overlay.underlay.{field}", text


def _underlay(underlay: Underlay, link: OverlayLink, own: Sequence[Slice]) -> Iterator[tuple[str, str]]:
    if len(underlay.peers) > MOST_PEERS:
        yield "peers", f"holds {len(underlay.peers)}, at most {MOST_PEERS} are possible"
        return
    given = Counter(peer.address for peer in underlay.peers)
    given[underlay.local] += 1
    taken = Counter(part for peer in underlay.peers for part in peer.slices)
    for number, peer in enumerate(underlay.peers):
        field = f"peers[{number}]"
        if peer.address.version != underlay.local.version:
            yield f"{field}.address", f"{peer.address} is of another family than this node's {underlay.local}"
        if given[peer.address] > 1:
            yield f"{field}.address", f"{peer.address} is given twice: each node has one of its own"
        for part in peer.slices:
            span = link.span(part.version)
            if span is None or not _lies_in(part, span):
                yield f"{field}.ipv{part.version}", f"{part} is no slice of the network's {span}"
            elif taken[part] > 1 or any(part.version == mine.version and part.overlaps(mine) for mine in own):
                yield f"{field}.ipv{part.version}", f"{part} is another node's slice"


def _containers(containers: Sequence[ContainerElsewhere]) -> Iterator[tuple[str, str]]:
    if len(containers) > MOST_CONTAINERS:
        yield "", f"holds {len(containers)}, at most {MOST_CONTAINERS} are possible"
        return
    for number, container in enumerate(containers):
        field = f"[{number}]"
        if not container.id:
            yield f"{field}.container_id", "is needed"
        if len(container.names) > _MOST_NAMES or any(len(name) > _LONGEST_NAME for name in container.names):
            yield f"{field}.names", f"holds at most {_MOST_NAMES} names of at most {_LONGEST_NAME} characters"
        if len(container.addresses) > _MOST_ADDRESSES or not all(map(_is_address, container.addresses)):
            yield f"{field}.addresses", f"must be at most {_MOST_ADDRESSES} plain addresses"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _lies_in(part: Slice, span: Slice) -> bool:
    return part.version == span.version and part.subnet_of(span)  # type: ignore[arg-type]  # one family
