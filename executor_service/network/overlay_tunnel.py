"""An overlay network's VXLAN interface on this node, and the way by it to the slice of every other node.

Between slices it is routed: for each peer one route to its slice by its gateway, one neighbour entry that says which
hardware address that has, and one forwarding entry that says to which node's address frames for it go. Nothing is
learnt and nothing is asked with multicast, so nobody can be told anything false; whoever knows a node's underlay
address knows the hardware address of its interface, which is made of it. Through pyroute2; all calls block.

Sources: RFC 7348; linux/if_link.h, linux/neighbour.h, drivers/net/vxlan.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]  # the package ships no types

from common.errors import FailedPrecondition
from executor_service.network.kernel_links import open_kernel
from executor_service.network.network import Network, OverlayLink, Peer, Underlay

# Of an IPv4 and an IPv6 underlay, bytes: the outer IP header, UDP's, VXLAN's, and the inner Ethernet header.
OVERHEAD = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}
_SMALLEST_MTU = 1280  # RFC 8200, section 5

_PERMANENT, _NO_ARP = 0x80, 0x40  # NUD_: for good, and never asked for
_SELF = 0x2  # NTF_SELF: an entry of the interface itself, not of a bridge that it is plugged into
_ON_LINK = 0x4  # RTNH_F_ONLINK: the gateway is a neighbour whatever the addresses say
_MAIN, _STATIC = 254, 4  # RT_TABLE_, RTPROT_

# pyroute2's messages: attributes by name, nested ones the same way.
Message = Any


@dataclass(frozen=True, slots=True)
class _Way:
    """To a peer's slice of one family."""

    slice: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address
    mac: str
    source: IPv4Address | IPv6Address  # of what this node itself sends there

    @property
    def family(self) -> int:
        return AF_INET if self.slice.version == 4 else AF_INET6


def hardware_address(link: OverlayLink, underlay: IPv4Address | IPv6Address) -> str:
    """Of the VXLAN interface of the node with this underlay address."""
    digest = hashlib.sha256(f"{link.vni} {underlay}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def fitting_mtu(network: Network) -> int:
    """Bytes: what the interface with the node's underlay address leaves, or the network's own. Raises
    FailedPrecondition when no interface has the address, or less is left than was asked for; OSError."""
    underlay = _underlay(network)
    with open_kernel() as kernel:
        index = _interface_with(kernel, underlay.local)
        if index is None:
            raise _unfit(
                network,
                f"no interface of this node has the underlay address {underlay.local}; give the executor one that it "
                "has, with --overlay-address",
            )
        carrier = kernel.get_links(index)[0]
        left = int(carrier.get("mtu")) - OVERHEAD[underlay.local.version]
        if left < max(network.mtu, _SMALLEST_MTU):
            raise _unfit(
                network,
                f"{carrier.get('ifname')} has an MTU of {carrier.get('mtu')} bytes, which leaves {left}, and "
                f"{max(network.mtu, _SMALLEST_MTU)} are needed; raise its MTU, or ask for a smaller one",
            )
        return network.mtu or left


def ensure_tunnel(network: Network, *, mtu: int) -> None:
    """Have the interface, up, with exactly the peers that the network has. Idempotent. The bridge with the gateways'
    addresses must be there. Raises FailedPrecondition when the VNI is somebody else's, OSError."""
    with open_kernel() as kernel:
        index = _made(kernel, network)
        _configure(network)
        kernel.link("set", index=index, mtu=mtu, state="up")
        ways = list(_ways(network, _underlay(network).peers))
        # What is no more goes first: a slice may have changed hands.
        _converge_routes(kernel, index, ways)
        _converge_neighbours(kernel, index, ways)
        _converge_forwarding(kernel, index, network)


def change_peers(before: Network, after: Network) -> bool:
    """Have the peers of `after`, where exactly those of `before` are known to be: nobody else's ways are looked at, for
    there may be thousands. False when something is not as it should be: `ensure_tunnel` then makes it so. Raises
    OSError."""
    known, wanted = set(_underlay(before).peers), set(_underlay(after).peers)
    going, coming = known - wanted, wanted - known
    replaced = {part for peer in coming for part in peer.slices}
    with open_kernel() as kernel:
        index = next(iter(kernel.link_lookup(ifname=after.tunnel)), None)
        if index is None or not _is_as_asked(kernel.get_links(index)[0], after):
            return False
        try:
            for way in _ways(before, going):
                if way.slice not in replaced:  # else it leads elsewhere in a moment
                    _delete_route(kernel, index, str(way.slice), way.family)
                    _delete_neighbour(kernel, index, str(way.gateway), way.family)
            for way in _ways(after, coming):
                _put_route(kernel, index, way)
                _put_neighbour(kernel, index, way)
            _change_forwarding(kernel, index, _forwarding(before, going), _forwarding(after, coming))
        except NetlinkError:
            return False
    return True


def delete_tunnel(network: Network) -> None:
    """Idempotent. Raises OSError."""
    with open_kernel() as kernel:
        for index in kernel.link_lookup(ifname=network.tunnel):
            if _kind(kernel.get_links(index)[0]) == "vxlan":
                kernel.link("del", index=index)


def _underlay(network: Network) -> Underlay:
    assert network.underlay is not None
    return network.underlay


def _link(network: Network) -> OverlayLink:
    assert network.overlay is not None
    return network.overlay


def _interface_with(kernel: IPRoute, address: IPv4Address | IPv6Address) -> int | None:
    family = AF_INET if address.version == 4 else AF_INET6
    for message in kernel.get_addr(family=family):
        own = message.get("local") or message.get("address")
        if ip_address(own) == address:
            return int(message["index"])
    return None


def _made(kernel: IPRoute, network: Network) -> int:
    """The interface's index. One that was made for other settings is made again: nothing is plugged into it."""
    for index in kernel.link_lookup(ifname=network.tunnel):
        found = kernel.get_links(index)[0]
        if _is_as_asked(found, network):
            return int(index)
        if _kind(found) != "vxlan":
            why = f"interface '{network.tunnel}' exists and is none of this network's; delete it"
            raise _unfit(network, why, reason="TUNNEL_NOT_OURS")
        kernel.link("del", index=index)
    try:
        kernel.link("add", ifname=network.tunnel, kind="vxlan", **_settings(network))
    except NetlinkError as error:
        raise _said(error, network) from error
    return int(kernel.link_lookup(ifname=network.tunnel)[0])


def _settings(network: Network) -> Mapping[str, Any]:
    link, local = _link(network), _underlay(network).local
    return {
        "address": hardware_address(link, local),
        "vxlan_id": link.vni,
        "vxlan_port": link.port,
        "vxlan_learning": 0,
        "vxlan_local" if local.version == 4 else "vxlan_local6": str(local),
    }


def _is_as_asked(found: Message, network: Network) -> bool:
    info = found.get("linkinfo")
    if info is None or info.get("kind") != "vxlan" or info.get("data") is None:
        return False
    wanted = dict(_settings(network))
    return found.get("address") == wanted.pop("address") and all(
        info.get("data").get(name) == value for name, value in wanted.items()
    )


def _kind(link: Message) -> str:
    info = link.get("linkinfo")
    return str(info.get("kind")) if info is not None else ""


def _configure(network: Network) -> None:
    """Nobody is to be heard there but by what is written down: no address of its own, no router advertisements."""
    sysctls = Path("/proc/sys/net/ipv6/conf", network.tunnel)
    (sysctls / "addr_gen_mode").write_text("1")  # IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
    (sysctls / "disable_ipv6").write_text("0" if network.ipv6 is not None else "1")
    (sysctls / "accept_ra").write_text("0")


def _ways(network: Network, peers: Iterable[Peer]) -> Iterator[_Way]:
    own = {subnet.subnet.version: subnet.gateway for subnet in network.subnets}
    for peer in peers:
        mac = hardware_address(_link(network), peer.address)
        for part in peer.slices:
            if part.version in own:
                yield _Way(part, part.network_address + 1, mac, own[part.version])


def _forwarding(network: Network, peers: Iterable[Peer]) -> set[tuple[str, str]]:
    """Hardware address and underlay address of each."""
    link = _link(network)
    return {(hardware_address(link, peer.address), str(peer.address)) for peer in peers}


def _converge_routes(kernel: IPRoute, index: int, ways: Iterable[_Way]) -> None:
    wanted = {str(way.slice): way for way in ways}
    for family in (AF_INET, AF_INET6):
        for route in kernel.get_routes(family=family, oif=index, table=_MAIN):
            destination = f"{route.get('dst')}/{route['dst_len']}"
            way = wanted.get(destination)
            if way is not None and route.get("gateway") == str(way.gateway) and route.get("prefsrc") == str(way.source):
                del wanted[destination]
            elif route["proto"] == _STATIC:
                _delete_route(kernel, index, destination, family)
    for way in wanted.values():
        _put_route(kernel, index, way)


def _put_route(kernel: IPRoute, index: int, way: _Way) -> None:
    kernel.route(
        "replace",
        dst=str(way.slice),
        gateway=str(way.gateway),
        oif=index,
        prefsrc=str(way.source),
        flags=_ON_LINK,
        family=way.family,
    )


def _delete_route(kernel: IPRoute, index: int, destination: str, family: int) -> None:
    kernel.route("del", dst=destination, oif=index, family=family, table=_MAIN)


def _converge_neighbours(kernel: IPRoute, index: int, ways: Iterable[_Way]) -> None:
    wanted = {str(way.gateway): way for way in ways}
    for family in (AF_INET, AF_INET6):
        for entry in kernel.get_neighbours(family=family, ifindex=index):
            if not entry["state"] & _PERMANENT:
                continue
            way = wanted.get(entry.get("dst"))
            if way is not None and entry.get("lladdr") == way.mac:
                del wanted[entry.get("dst")]
            elif way is None:
                _delete_neighbour(kernel, index, entry.get("dst"), family)
    for way in wanted.values():
        _put_neighbour(kernel, index, way)


def _put_neighbour(kernel: IPRoute, index: int, way: _Way) -> None:
    kernel.neigh("replace", ifindex=index, dst=str(way.gateway), lladdr=way.mac, state=_PERMANENT, family=way.family)


def _delete_neighbour(kernel: IPRoute, index: int, address: str, family: int) -> None:
    kernel.neigh("del", ifindex=index, dst=address, family=family)


def _converge_forwarding(kernel: IPRoute, index: int, network: Network) -> None:
    there = {(entry.get("lladdr"), entry.get("dst")) for entry in kernel.fdb("dump", ifindex=index)}
    _change_forwarding(kernel, index, there, _forwarding(network, _underlay(network).peers))


def _change_forwarding(kernel: IPRoute, index: int, there: set[tuple[str, str]], wanted: set[tuple[str, str]]) -> None:
    for mac, address in there - wanted:
        kernel.fdb("del", ifindex=index, lladdr=mac, dst=address, flags=_SELF)
    for mac, address in wanted - there:
        kernel.fdb("add", ifindex=index, lladdr=mac, dst=address, state=_PERMANENT | _NO_ARP, flags=_SELF)


def _said(error: NetlinkError, network: Network) -> Exception:
    link = _link(network)
    if error.code == errno.EEXIST:
        why = (
            f"VNI {link.vni} at UDP port {link.port} is in use by another interface of this host ('ip -d link show "
            "type vxlan' tells which); delete that, or make the network anew"
        )
        return _unfit(network, why, reason="VNI_IN_USE")
    if error.code == errno.EOPNOTSUPP:
        return _unfit(network, "the kernel has no VXLAN; it needs CONFIG_VXLAN", reason="VXLAN_UNAVAILABLE")
    return OSError(error.code, f"create {network.tunnel}: {error.args[-1]}")


def _unfit(network: Network, why: str, *, reason: str = "UNDERLAY_UNAVAILABLE") -> FailedPrecondition:
    return FailedPrecondition(
        f"network '{network.name}': {why}", resource_type="network", resource_name=network.id, reason=reason
    )
