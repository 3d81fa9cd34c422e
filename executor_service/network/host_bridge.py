"""A network's bridge on the host: made, adopted when it is our own from before, refused when it is somebody else's.

Off the path of a container's start, so through pyroute2; all calls block and belong on a worker thread. Ours is told
by its MAC address, which is derived from the network and its owner, the instance's run directory: set in the same
request that makes the bridge, it leaves no instant in which the bridge could not be recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute  # type: ignore[import-untyped]  # the package ships no types

from common.errors import FailedPrecondition
from executor_service.network.driver import HostLink
from executor_service.network.kernel_links import open_kernel
from executor_service.network.network import Network

_DEFAULT_MTU = 1500
_NO_DUPLICATE_DETECTION = 0x2  # IFA_F_NODAD, linux/if_addr.h
_RT_TABLE_MAIN = 254
_LONGEST_DEFAULT_ROUTE = 1  # a VPN's 0.0.0.0/1 and 128.0.0.0/1 are its way to say "default"

# pyroute2's messages: attributes by name, nested ones the same way.
Message = Any


def ensure_bridge(network: Network, owner: Path) -> HostLink:
    """Make or adopt the bridge, with the gateways' addresses, and bring it up. Idempotent; undone when it fails.

    Raises FailedPrecondition when the name is somebody else's or a subnet is in use elsewhere on the host, OSError."""
    with open_kernel() as kernel:
        existing = _find(kernel, network.bridge)
        if existing is not None:
            _check_ours(kernel, network, owner, existing)
        _check_overlap(kernel, network)
        mtu = network.mtu or _mtu_of_default_route(kernel)
        if existing is None:
            mac = _mac(network, owner)
            kernel.link("add", ifname=network.bridge, kind="bridge", address=mac, mtu=mtu, br_stp_state=0)
        index = kernel.link_lookup(ifname=network.bridge)[0]
        try:
            _configure(kernel, network, index, mtu)
        except BaseException:
            if existing is None:
                kernel.link("del", index=index)
            raise
        return HostLink(index=index, mtu=mtu, created=existing is None)


def delete_bridge(network: Network, owner: Path) -> None:
    """Delete the bridge if it exists and is ours. Idempotent."""
    with open_kernel() as kernel:
        existing = _find(kernel, network.bridge)
        if existing is not None and existing.get("address") == _mac(network, owner):
            kernel.link("del", index=existing["index"])


def is_elses(network: Network, owner: Path) -> bool:
    """Whether an interface has the bridge's name that is not ours."""
    with open_kernel() as kernel:
        existing = _find(kernel, network.bridge)
        return existing is not None and existing.get("address") != _mac(network, owner)


def subnets_in_use() -> list[IPv4Network | IPv6Network]:
    """Every destination this host has a route to, default routes left out."""
    with open_kernel() as kernel:
        return [destination for destination, _ in _routes(kernel)]


def interfaces_with_prefix(prefix: str) -> set[str]:
    """Names of the host's interfaces that begin so."""
    with open_kernel() as kernel:
        return {name for link in kernel.get_links() if (name := str(link.get("ifname"))).startswith(prefix)}


def masters_by_prefix(prefix: str) -> dict[str, int]:
    """The index of the bridge, 0 for none, of each of the host's interfaces whose name begins so."""
    with open_kernel() as kernel:
        links = {str(link.get("ifname")): link.get("master") for link in kernel.get_links()}
        return {name: int(master or 0) for name, master in links.items() if name.startswith(prefix)}


def _mac(network: Network, owner: Path) -> str:
    digest = hashlib.sha256(f"{owner} {network.id}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _find(kernel: IPRoute, name: str) -> Message | None:
    index = kernel.link_lookup(ifname=name)
    return kernel.get_links(index[0])[0] if index else None


def _check_ours(kernel: IPRoute, network: Network, owner: Path, link: Message) -> None:
    info = link.get("linkinfo")
    if info is None or info.get("kind") != "bridge" or link.get("address") != _mac(network, owner):
        raise FailedPrecondition(
            f"interface '{network.bridge}' exists and was not made by this instance for network '{network.name}'; "
            "delete it, or choose another bridge name",
            reason="BRIDGE_NOT_OURS",
            resource_type="bridge",
            resource_name=network.bridge,
        )
    ours = {str(subnet.gateway) for subnet in network.subnets}
    for message in kernel.get_addr(index=link["index"]):
        address = message.get("address")
        if address not in ours and not ip_address(address).is_link_local:
            raise FailedPrecondition(
                f"bridge '{network.bridge}' carries the address {address}, which is not a gateway of "
                f"{' or '.join(str(subnet.subnet) for subnet in network.subnets)}: it was set up for other subnets; "
                "stop its containers and delete it, or configure the subnets it had",
                reason="BRIDGE_ADDRESS_MISMATCH",
                resource_type="bridge",
                resource_name=network.bridge,
            )


def _check_overlap(kernel: IPRoute, network: Network) -> None:
    names = {link["index"]: str(link.get("ifname")) for link in kernel.get_links()}
    for destination, index in _routes(kernel):
        interface = names.get(index, "?") if index is not None else "several interfaces"
        if interface in {network.bridge, network.tunnel}:
            continue
        for subnet in network.spans:
            if subnet.version == destination.version and subnet.overlaps(destination):
                raise FailedPrecondition(
                    f"subnet {subnet} of network '{network.name}' overlaps {destination}, which this host reaches "
                    f"through {interface}; choose another subnet",
                    reason="SUBNET_OVERLAPS",
                    resource_type="bridge",
                    resource_name=network.bridge,
                    metadata={"subnet": str(subnet), "route": str(destination), "interface": interface},
                )


def _routes(kernel: IPRoute) -> Iterator[tuple[IPv4Network | IPv6Network, int | None]]:
    """(destination, index of the interface) of every route of every table, the host's own addresses among them (they
    are the table `local`), default routes left out."""
    for family in (AF_INET, AF_INET6):
        for route in kernel.get_routes(family=family):
            if route["dst_len"] > _LONGEST_DEFAULT_ROUTE:
                yield ip_network(f"{route.get('dst')}/{route['dst_len']}"), route.get("oif")


def _mtu_of_default_route(kernel: IPRoute) -> int:
    for family in (AF_INET, AF_INET6):
        for route in kernel.get_routes(family=family, table=_RT_TABLE_MAIN):
            if route["dst_len"] == 0 and route.get("oif") is not None:
                return int(kernel.get_links(route.get("oif"))[0].get("mtu"))
    return _DEFAULT_MTU


def _configure(kernel: IPRoute, network: Network, index: int, mtu: int) -> None:
    # Before the link comes up: duplicate address detection would make the gateway unusable for a second or two.
    sysctls = Path("/proc/sys/net/ipv6/conf", network.bridge)
    (sysctls / "disable_ipv6").write_text("0" if network.ipv6 is not None and network.ipv6.on_host else "1")
    for name in ("accept_dad", "accept_ra"):
        (sysctls / name).write_text("0")
    for subnet in (one for one in network.subnets if one.on_host):
        kernel.addr(
            "replace",
            index=index,
            address=str(subnet.gateway),
            prefixlen=subnet.subnet.prefixlen,
            flags=_NO_DUPLICATE_DETECTION,
        )
    kernel.link("set", index=index, mtu=mtu, state="up")
