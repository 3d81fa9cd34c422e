"""Make, delete and list the node's networks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from common.errors import InvalidArgument, Violation
from common.set_apart import set_apart
from executor_service.host_errors import host_errors
from executor_service.network.network import GatewayMode, MacvlanLink, Network, NetworkSpec, SubnetSpec
from executor_service.node import Node
from executor_service.operations.network_overlay import overlay_rules

_ID = re.compile(r"[a-f0-9]{64}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_BRIDGE = re.compile(r"[a-z][a-z0-9_-]{0,14}")  # IFNAMSIZ is 16 with the NUL: linux/if.h
_PARENT = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}")
_SMALLEST = {4: 30, 6: 126}  # bits of prefix, by version: a gateway and one container
_MTU = range(1280, 65536)  # below it Linux switches IPv6 off on the link: RFC 8200 section 5


async def network_create(node: Node, spec: NetworkSpec) -> Network:
    """Idempotent. Raises InvalidArgument with every violation, FailedPrecondition when it is there otherwise or
    collides with what is there, ResourceExhausted when no subnet is free."""
    if broken := [Violation(field=f"spec.{field}", description=text) for field, text in _rules(spec)]:
        raise InvalidArgument(violations=broken)
    with host_errors(f"network {spec.name!r}"):
        return await node.seams.networks.create(spec)


async def network_remove(node: Node, network_id: str) -> None:
    """Idempotent. Raises FailedPrecondition while a container of the node names it."""
    with node.network_use.removal(network_id), host_errors(f"network {network_id!r}"):
        await node.seams.networks.remove(network_id)
        await node.seams.names_elsewhere.forget(network_id)


def _rules(spec: NetworkSpec) -> Iterator[tuple[str, str]]:
    if not _ID.fullmatch(spec.id):
        yield "id", f"{spec.id!a} must be 64 lower-case hexadecimal characters"
    if not _NAME.fullmatch(spec.name):
        yield "name", f"{spec.name!a} must match {_NAME.pattern}"
    if spec.bridge and not _BRIDGE.fullmatch(spec.bridge):
        yield "bridge", f"{spec.bridge!a} must be 1 to 15 of a-z 0-9 _ -, a letter first"
    if spec.mtu and spec.mtu not in _MTU:
        yield "mtu", f"{spec.mtu} must be {_MTU[0]} to {_MTU[-1]} bytes, or 0"
    if spec.ipv4 is None and spec.ipv6 is None:
        yield "ipv4", "a network needs addresses of one family at least"
    if spec.macvlan is not None:
        yield from _macvlan(spec, spec.macvlan)
    if spec.overlay is not None:
        yield from overlay_rules(spec, spec.overlay)
    for version, subnet in ((4, spec.ipv4), (6, spec.ipv6)):
        if subnet is not None:
            yield from _subnet(subnet, version)
            if subnet.gateway_mode is GatewayMode.ISOLATED and not spec.internal:
                yield f"ipv{version}.gateway_mode", "isolated is for internal networks"


def _macvlan(spec: NetworkSpec, link: MacvlanLink) -> Iterator[tuple[str, str]]:
    if not _PARENT.fullmatch(link.parent):
        yield "macvlan.parent", f"{link.parent!a} must be the name of an interface, at most 15 characters"
    if spec.bridge or spec.mtu:
        yield "bridge", "a macvlan network has no bridge, and its parent's MTU"
    families = ((4, spec.ipv4), (6, spec.ipv6))
    for version, subnet in families:
        if subnet is not None and subnet.subnet is None:
            yield f"ipv{version}.subnet", "a macvlan network needs the subnet of its link"
        if subnet is not None and subnet.gateway_mode is not GatewayMode.NAT:
            yield f"ipv{version}.gateway_mode", "a macvlan network has no gateway of ours"


def _subnet(spec: SubnetSpec, version: int) -> Iterator[tuple[str, str]]:
    field, subnet = f"ipv{version}", spec.subnet
    named = [value for value in (subnet, spec.gateway, spec.ip_range, *spec.reserved) if value is not None]
    if any(value.version != version for value in named):
        yield field, f"holds an address of another family than IPv{version}"
        return
    if subnet is None:
        if len(named) > 0:
            yield field, "a gateway, a range and reserved addresses need a subnet"
        return
    for why in set_apart(subnet):
        yield f"{field}.subnet", why
    if subnet.prefixlen > _SMALLEST[version]:
        yield f"{field}.subnet", f"{subnet} must be a /{_SMALLEST[version]} or larger: a gateway and one container"
    if spec.ip_range is not None and not spec.ip_range.subnet_of(subnet):  # type: ignore[arg-type]  # one family, above
        yield f"{field}.ip_range", f"{spec.ip_range} must lie in {subnet}"
    for name, address in (("gateway", spec.gateway), *(("reserved", address) for address in spec.reserved)):
        if address is not None and address not in subnet:
            yield f"{field}.{name}", f"{address} must lie in {subnet}"
