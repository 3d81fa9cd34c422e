"""Ports of a container that are published on its node: as they are asked for, and as they came to be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_PUBLISHED = 16_384  # ports of one container
HIGHEST_PORT = 65_535
LOOPBACK_IPV6 = "::1"


class PortProtocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """`host_ip` empty: all addresses of both families, with one port. `host_port` to `host_port_last`: the first free
    one is taken; both 0: any."""

    host_ip: str
    host_port: int
    host_port_last: int
    container_port: int
    protocol: PortProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPort:
    """`host_ip`: `0.0.0.0` and `::` stand for all addresses of their family."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: PortProtocol
