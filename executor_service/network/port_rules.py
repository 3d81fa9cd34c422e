"""The part of our nftables table that leads published ports to containers: an element of a map for each port.

What is sent to 127.0.0.0/8 from elsewhere never gets as far as these maps, neither from another machine nor from a
container: `route_localnet`, without which the host itself could not be served there, would let it. What the host sends
to `::1` cannot be led elsewhere; TCP is redirected to a socket of the executor (`loopback_forwarder`). The client's
address stays as it is; only where the answer would not come back through the host is it replaced (see firewall).
Source: nft(8)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from executor_service.network.port_leases import ALL_IPV4, ALL_IPV6, Lease
from executor_service.ports import LOOPBACK_IPV6

_MAPS = {
    "ports4": "inet_proto . inet_service : ipv4_addr . inet_service",
    "ports6": "inet_proto . inet_service : ipv6_addr . inet_service",
    "ports4_at": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "ports6_at": "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
    "ports4_loopback": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
}
_FORWARDED = "ports6_loopback"  # the ports of TCP that the forwarder serves
_NAMES = {**dict.fromkeys(_MAPS, "map"), _FORWARDED: "set"}
_EVERYWHERE = """
        dnat ip to ip daddr . meta l4proto . th dport map @ports4_at
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at
        fib daddr type local dnat ip to meta l4proto . th dport map @ports4
        ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6"""
_CHAINS = """
    chain raw_prerouting {{
        type filter hook prerouting priority raw; policy accept;
        iifname != "lo" ip daddr 127.0.0.0/8 drop comment "the host's own services are nobody else's"
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;{everywhere}
    }}
    chain output {{
        type nat hook output priority -100; policy accept;{forwarded}
        dnat ip to ip daddr . meta l4proto . th dport map @ports4_loopback{everywhere}
    }}"""


def declarations(leases: Iterable[Lease], *, forwarder: int = 0) -> str:
    """Maps and chains for the body of our table, with the leases that lead somewhere. `forwarder`: the port of ::1 on
    which it listens; 0: there is none."""
    elements = _elements(leases)
    maps = "".join(
        f"\n    map {name} {{ type {kind}; {_listed(elements.get(name, []))} }}" for name, kind in _MAPS.items()
    )
    forwarded = f"\n        ip6 daddr ::1 tcp dport @{_FORWARDED} redirect to :{forwarder}" if forwarder else ""
    served = f"\n    set {_FORWARDED} {{ type inet_service; {_listed(elements.get(_FORWARDED, []))} }}"
    return maps + served + _CHAINS.format(everywhere=_EVERYWHERE, forwarded=forwarded)


def replace_all(table: str, leases: Iterable[Lease]) -> str:
    """Commands that leave these leases and no others."""
    flushed = "".join(f"flush {kind} inet {table} {name}\n" for name, kind in _NAMES.items())
    return flushed + add(table, leases)


def add(table: str, leases: Iterable[Lease]) -> str:
    """Commands; refused by the kernel when a port leads elsewhere already."""
    return "".join(
        f"add element inet {table} {name} {{ {', '.join(map(_text, pairs))} }}\n"
        for name, pairs in _elements(leases).items()
    )


def remove(table: str, leases: Iterable[Lease]) -> str:
    """Commands; refused by the kernel when one of them is not there."""
    return "".join(
        f"delete element inet {table} {name} {{ {', '.join(key for key, _ in pairs)} }}\n"
        for name, pairs in _elements(leases).items()
    )


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    listed = ", ".join(map(_text, pairs))
    return f"elements = {{ {listed} }};" if listed else ""


def _text(pair: tuple[str, str]) -> str:
    key, value = pair
    return f"{key} : {value}" if value else key


def _elements(leases: Iterable[Lease]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for lease in leases:
        if lease.target:
            for name, key, value in _element(lease):
                found.setdefault(name, []).append((key, value))
    return found


def _element(lease: Lease) -> Iterator[tuple[str, str, str]]:
    key, value = f"{lease.protocol} . {lease.host_port}", f"{lease.target} . {lease.container_port}"
    if lease.forwarded:
        yield _FORWARDED, str(lease.host_port), ""
    if lease.host_ip in {ALL_IPV4, ALL_IPV6}:
        yield ("ports6" if ":" in lease.host_ip else "ports4"), key, value
        return
    if lease.host_ip == LOOPBACK_IPV6:
        return
    address = ip_address(lease.host_ip)
    name = "ports4_loopback" if address.is_loopback else f"ports{address.version}_at"
    yield name, f"{lease.host_ip} . {key}", value
