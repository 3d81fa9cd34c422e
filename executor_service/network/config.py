"""How the default bridge network is to be set up on this node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from common.errors import InvalidArgument, Violation

_INTERFACE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,14}")  # IFNAMSIZ is 16 with the NUL: linux/if.h
_TABLE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193
_MINIMUM_MTU = 1280  # below it Linux switches IPv6 off on the link: RFC 8200 section 5
_MAXIMUM_MTU = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """One node's default bridge network. The gateway is the first address of each subnet.

    `bridge` and `table` (nftables, family inet) belong to this instance alone; two instances on one machine need
    different ones. `mtu` None means that of the default route's link. `run_directory` holds the pins of the network
    namespaces and must not survive a reboot (`/run/slipway/netns`). `pool_size` sandboxes stand ready ahead of time.
    """

    bridge: str
    table: str
    ipv4_subnet: IPv4Network
    ipv6_subnet: IPv6Network
    run_directory: Path
    mtu: int | None = None  # bytes
    pool_size: int = 4

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
