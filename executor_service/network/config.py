"""How networks are to be set up on this node: the default one, and where the others get their addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.network.network import DEFAULT_NETWORK, Network, SubnetSpec, resolve_subnet

NETWORK_PREFIX = {4: 24, 6: 64}  # bits, by version, of a network that asks for no subnet

_INTERFACE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,14}")  # IFNAMSIZ is 16 with the NUL: linux/if.h
_TABLE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193
_MINIMUM_MTU = 1280  # below it Linux switches IPv6 off on the link: RFC 8200 section 5
_MAXIMUM_MTU = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """One node's networks. `ipv4_subnet` and `ipv6_subnet` are the default one's, whose gateway is the first address of
    each.

    `bridge` and `table` (nftables, family inet) belong to this instance alone; two instances on one machine need
    different ones. `mtu` None means that of the default route's link. `run_directory` holds the pins of the network
    namespaces and must not survive a reboot (`/run/slipway/netns`). `pool_size` sandboxes of each kind
    stand ready ahead of time. Networks that ask for no subnet get /24s of `ipv4_base` and /64s of `ipv6_base`.
    """

    bridge: str
    table: str
    ipv4_subnet: IPv4Network
    ipv6_subnet: IPv6Network
    run_directory: Path
    ipv4_base: IPv4Network
    ipv6_base: IPv6Network
    mtu: int | None = None  # bytes
    pool_size: int = 4
    loopback_forwarder: int = 0  # the port of [::1] on which this process serves published ones; 0: none

    @property
    def default_network(self) -> Network:
        return Network(
            id=DEFAULT_NETWORK,
            name=DEFAULT_NETWORK,
            bridge=self.bridge,
            ipv4=resolve_subnet(SubnetSpec(), self.ipv4_subnet),
            ipv6=resolve_subnet(SubnetSpec(), self.ipv6_subnet),
            mtu=self.mtu or 0,
        )

    @property
    def gateways(self) -> tuple[str, str]:
        """The bridge's own addresses, by which containers reach the host: IPv4, IPv6."""
        return str(self.ipv4_subnet.network_address + 1), str(self.ipv6_subnet.network_address + 1)

    def __post_init__(self) -> None:
        """Raises InvalidArgument with every broken rule."""
        rules = (
            ("bridge", bool(_INTERFACE_NAME.fullmatch(self.bridge)), "must be 1 to 15 of a-z 0-9 _ -, a letter first"),
            ("table", bool(_TABLE_NAME.fullmatch(self.table)), "must be 1 to 64 of a-z 0-9 _ -, a letter first"),
            ("ipv4_subnet", self.ipv4_subnet.prefixlen <= 30, "must be a /30 or larger: gateway and one container"),
            ("ipv6_subnet", self.ipv6_subnet.prefixlen <= 126, "must be a /126 or larger: gateway and one container"),
            ("ipv6_subnet", self.ipv6_subnet.subnet_of(_UNIQUE_LOCAL), "must be a unique local subnet (fc00::/7)"),
            ("ipv4_base", self.ipv4_base.prefixlen <= NETWORK_PREFIX[4], "must be a /24 or larger: one network"),
            ("ipv6_base", self.ipv6_base.prefixlen <= NETWORK_PREFIX[6], "must be a /64 or larger: one network"),
            ("ipv6_base", self.ipv6_base.subnet_of(_UNIQUE_LOCAL), "must be a unique local subnet (fc00::/7)"),
            ("run_directory", self.run_directory.is_absolute(), "must be an absolute path"),
            ("mtu", self.mtu is None or _MINIMUM_MTU <= self.mtu <= _MAXIMUM_MTU, "must be 1280 to 65535 bytes"),
            ("pool_size", 0 <= self.pool_size <= 64, "must be 0 to 64"),
        )
        violations = [
            Violation(field=f"network.{name}", description=f"{getattr(self, name)!s} {rule}")
            for name, holds, rule in rules
            if not holds
        ]
        if violations:
            raise InvalidArgument(violations=violations)
