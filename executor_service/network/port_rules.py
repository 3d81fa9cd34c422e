"""The part of our nftables table that leads published ports to containers: an element of a map for each port.

What is sent to 127.0.0.0/8 from elsewhere never gets as far as these maps, neither from another machine nor from a
container: `route_localnet`, without which the host itself could not be served there, would let it. `::1` cannot be
translated at all. The client's address stays as it is; only where the answer would not come back through the host is
it replaced (see firewall). Source: nft(8)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from executor_service.network.port_leases import ALL_IPV4, ALL_IPV6, Lease

_MAPS = {
    "ports4": "inet_proto . inet_service : ipv4_addr . inet_service",
    "ports6": "inet_proto . inet_service : ipv6_addr . inet_service",
    "ports4_at": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "ports6_at": "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
    "ports4_loopback": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
}
_EVERYWHERE = """
        dnat ip to ip daddr . meta l4proto . th dport map @ports4_at
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at
        fib daddr type local dnat ip to meta l4proto . th dport map @ports4
        ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6"""
_CHAINS = f"""
    chain raw_prerouting {{
        type filter hook prerouting priority raw; policy accept;
        iifname != "lo" ip daddr 127.0.0.0/8 drop comment "the host's own services are nobody else's"
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;{_EVERYWHERE}
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        dnat ip to ip daddr . meta l4proto . th dport map @ports4_loopback{_EVERYWHERE}
    }}"""


def declarations(leases: Iterable[Lease]) -> str:
    """Maps and chains for the body of our table, with the leases that lead somewhere."""
    elements = _elements(leases)
    maps = "".join(
        f"\n    map {name} {{ type {kind}; {_listed(elements.get(name, []))} }}" for name, kind in _MAPS.items()
    )
    return maps + _CHAINS


def replace_all(table: str, leases: Iterable[Lease]) -> str:
    """Commands that leave these leases and no others."""
    flushed = "".join(f"flush map inet {table} {name}\n" for name in _MAPS)
    return flushed + add(table, leases)


def add(table: str, leases: Iterable[Lease]) -> str:
    """Commands; refused by the kernel when a port leads elsewhere already."""
    return "".join(
        f"add element inet {table} {name} {{ {', '.join(f'{key} : {value}' for key, value in pairs)} }}\n"
        for name, pairs in _elements(leases).items()
    )


def remove(table: str, leases: Iterable[Lease]) -> str:
    """Commands; refused by the kernel when one of them is not there."""
    return "".join(
        f"delete element inet {table} {name} {{ {', '.join(key for key, _ in pairs)} }}\n"
        for name, pairs in _elements(leases).items()
    )


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    listed = ", ".join(f"{key} : {value}" for key, value in pairs)
    return f"elements = {{ {listed} }};" if listed else ""


def _elements(leases: Iterable[Lease]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for lease in leases:
        if lease.target:
            for name, key, value in _element(lease):
                found.setdefault(name, []).append((key, value))
    return found


def _element(lease: Lease) -> Iterator[tuple[str, str, str]]:
    key, value = f"{lease.protocol} . {lease.host_port}", f"{lease.target} . {lease.container_port}"
    if lease.host_ip in {ALL_IPV4, ALL_IPV6}:
        yield ("ports6" if ":" in lease.host_ip else "ports4"), key, value
        return
    address = ip_address(lease.host_ip)
    if address.is_loopback and address.version == 6:
        return
    name = "ports4_loopback" if address.is_loopback else f"ports{address.version}_at"
    yield name, f"{lease.host_ip} . {key}", value
