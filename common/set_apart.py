"""Addresses that no network of containers can have: they are set apart for others.

Sources: RFC 6890 (special-purpose addresses), RFC 4291 (IPv6), RFC 5771 (IPv4 multicast).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_SET_APART: tuple[tuple[IpNetwork, str], ...] = (
    (ipaddress.ip_network("0.0.0.0/8"), "this host"),
    (ipaddress.ip_network("127.0.0.0/8"), "loopback"),
    (ipaddress.ip_network("169.254.0.0/16"), "link-local addresses"),
    (ipaddress.ip_network("224.0.0.0/4"), "multicast"),
    (ipaddress.ip_network("240.0.0.0/4"), "no use yet and broadcast"),
    (ipaddress.ip_network("::/127"), "loopback and no address"),
    (ipaddress.ip_network("::ffff:0:0/96"), "IPv4 addresses written as IPv6"),
    (ipaddress.ip_network("fe80::/10"), "link-local addresses"),
    (ipaddress.ip_network("ff00::/8"), "multicast"),
)
_ROOM = "use one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8, for example"


def set_apart(subnet: IpNetwork) -> Iterator[str]:
    """Why the subnet cannot be had, a sentence for each range that it overlaps."""
    for apart, purpose in _SET_APART:
        if apart.version == subnet.version and apart.overlaps(subnet):
            yield f"{subnet} overlaps {apart}, which is set apart for {purpose}; {_ROOM}"
