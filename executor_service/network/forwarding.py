"""IP forwarding of the host, without which nothing leaves the bridge: Documentation/networking/ip-sysctl.rst."""

from __future__ import annotations

from pathlib import Path

import structlog

from common.errors import FailedPrecondition

_log = structlog.get_logger(__name__)

# /proc/sys/net shows the network namespace of whoever reads it, unlike /sys/class/net.
_ROOT = Path("/proc/sys/net")
_SWITCHES = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def enable_forwarding(*, root: Path = _ROOT) -> None:
    """Switch forwarding on for both families where it is off. Blocks. Raises FailedPrecondition when it is refused."""
    for switch in _SWITCHES:
        path = root / switch
        name = f"net.{switch.replace('/', '.')}"
        try:
            if path.read_text().strip() == "1":
                continue
            path.write_text("1")
        except OSError as error:
            raise FailedPrecondition(
                f"cannot enable {name}: {error.strerror}; containers on the bridge network need it. Set it to 1 on "
                "the host (sysctl.d), or give the executor CAP_NET_ADMIN and a writable /proc/sys",
                reason="FORWARDING_DISABLED",
                resource_type="sysctl",
                resource_name=name,
            ) from error
        _log.info("forwarding enabled", sysctl=name)
        if switch.startswith("ipv6"):
            _warn_of_advertised_routes(root)


def route_localnet(bridge: str, *, root: Path = _ROOT) -> None:
    """Let what the host sends from 127.0.0.1 reach containers through their published ports. The firewall keeps the
    way back shut: without it, containers could reach the host's services there. Blocks. Raises OSError."""
    (root / "ipv4/conf" / bridge / "route_localnet").write_text("1")


def _warn_of_advertised_routes(root: Path) -> None:
    """A router ignores router advertisements unless accept_ra is 2: the host may lose its own default route."""
    for conf in sorted((root / "ipv6/conf").iterdir()):
        if conf.name not in {"all", "default", "lo"} and (conf / "accept_ra").read_text().strip() == "1":
            _log.warning(
                "IPv6 router advertisements are ignored from now on; if this host gets its IPv6 route from them, set "
                "accept_ra to 2",
                interface=conf.name,
            )
