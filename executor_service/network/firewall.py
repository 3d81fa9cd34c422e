"""Our nftables table: what leaves the bridge is masqueraded, nothing else's policy is touched.

The whole table is replaced in one transaction, so there is no instant without it, and repeating it changes nothing.
Through libnftables (libnftables-json(5), nft(8)); all calls block, and act on the calling thread's network namespace.
"""

from __future__ import annotations

import nftables

from common.errors import FailedPrecondition
from executor_service.network.config import BridgeConfig


def install_table(config: BridgeConfig) -> None:
    """Put our table in place, whatever it held before. Raises FailedPrecondition when nftables is not to be had."""
    _run(_replace(config))


def remove_table(config: BridgeConfig) -> None:
    """Idempotent."""
    _run(f"table inet {config.table}\ndelete table inet {config.table}\n")


def _replace(config: BridgeConfig) -> str:
    # Names are checked by BridgeConfig, subnets are parsed: nothing here can leave its place in the grammar.
    bridge, ipv4, ipv6 = config.bridge, config.ipv4_subnet, config.ipv6_subnet
    return f"""
table inet {config.table}
delete table inet {config.table}
table inet {config.table} {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" oifname "{bridge}" accept
        iifname "{bridge}" ip saddr != {ipv4} drop comment "forged source address"
        iifname "{bridge}" ip6 saddr != {ipv6} drop
        iifname "{bridge}" ct state invalid drop comment "would leave without being masqueraded"
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" drop comment "nobody outside reaches a container unasked"
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {ipv4} oifname != "{bridge}" masquerade
        ip6 saddr {ipv6} oifname != "{bridge}" masquerade
    }}
}}
"""


def _run(commands: str) -> None:
    try:
        context = nftables.Nftables()
    except OSError as error:
        raise FailedPrecondition(
            f"libnftables cannot be loaded: {error}; install it (Debian: libnftables1)", reason="NFTABLES_MISSING"
        ) from error
    status, _, message = context.cmd(commands)
    if status != 0:
        raise FailedPrecondition(
            f"nftables refuses our table: {' '.join(str(message).split())}; the kernel needs nf_tables with nat and "
            "masquerade, and the executor CAP_NET_ADMIN",
            reason="NFTABLES_REFUSED",
        )
