"""Our nftables table: what leaves a network is masqueraded, networks are kept apart, published ports lead into them;
nobody's policy is touched.

The rules are few and the same however many networks there are: what differs between them stands in sets. The whole
table is replaced in one transaction, so there is no instant without it, and repeating it changes nothing; a network
more or less changes elements only. Through libnftables (libnftables-json(5), nft(8)); all calls block, and act on the
calling thread's network namespace.
"""

from __future__ import annotations

from collections.abc import Iterable

import nftables

from common.errors import FailedPrecondition
from executor_service.network import port_rules
from executor_service.network.network import GatewayMode, Network, Subnet
from executor_service.network.port_leases import Lease

# Names are checked by BridgeConfig and the rules of a network, addresses are parsed: nothing of what is put in here can
# leave its place in the grammar.
_TABLE = """
table inet {table}
delete table inet {table}
table inet {table} {{
    set bridges {{ type ifname; {bridges} }}
    set internal {{ type ifname; {internal} }}
    set talking {{ type ifname . ifname; {talking} }}
    set routed4 {{ type ifname; {routed4} }}
    set routed6 {{ type ifname; {routed6} }}
    set subnets4 {{ type ifname . ipv4_addr; flags interval; {subnets4} }}
    set subnets6 {{ type ifname . ipv6_addr; flags interval; {subnets6} }}
    set gateways4 {{ type ipv4_addr; {gateways4} }}
    set gateways6 {{ type ipv6_addr; {gateways6} }}
    set own_gateways4 {{ type ifname . ipv4_addr; {own_gateways4} }}
    set own_gateways6 {{ type ifname . ipv6_addr; {own_gateways6} }}
    set masqueraded4 {{ type ipv4_addr; flags interval; {masqueraded4} }}
    set masqueraded6 {{ type ipv6_addr; flags interval; {masqueraded6} }}
{ports}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname @bridges jump from_containers
    }}
    chain from_containers {{
        ct state established,related accept
        iifname . ip saddr != @subnets4 drop comment "forged source address"
        ip6 saddr != {{ ::, fe80::/10 }} iifname . ip6 saddr != @subnets6 drop
        iifname . ip daddr @own_gateways4 accept
        iifname . ip6 daddr @own_gateways6 accept
        ip daddr @gateways4 drop comment "another network's gateway"
        ip6 daddr @gateways6 drop
        ip6 daddr {{ fe80::/10, ff00::/8 }} accept comment "neighbour discovery"
        iifname @internal drop comment "nothing leaves an internal network"
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname . oifname @talking accept
        iifname @bridges iifname . ip saddr != @subnets4 drop comment "forged source address"
        iifname @bridges iifname . ip6 saddr != @subnets6 drop
        iifname @bridges ct state invalid drop comment "would leave without being masqueraded"
        iifname @internal drop comment "nothing leaves an internal network"
        oifname @internal drop
        oifname @bridges ct state established,related accept
        iifname != @bridges meta nfproto ipv4 oifname @routed4 accept
        iifname != @bridges meta nfproto ipv6 oifname @routed6 accept
        ct status dnat accept comment "a published port"
        oifname @bridges drop comment "nobody outside reaches a container unasked"
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ct status dnat ip saddr 127.0.0.0/8 oifname != "lo" masquerade comment "the host's answer to itself"
        ct status dnat oifname . ip saddr @subnets4 masquerade comment "a neighbour would answer past the host"
        ct status dnat oifname . ip6 saddr @subnets6 masquerade
        ip saddr @masqueraded4 oifname . ip saddr != @subnets4 masquerade
        ip6 saddr @masqueraded6 oifname . ip6 saddr != @subnets6 masquerade
    }}
}}
"""


def install_table(table: str, networks: Iterable[Network], ports: Iterable[Lease] = ()) -> None:
    """Put our table in place, whatever it held before. Raises FailedPrecondition when nftables is not to be had."""
    elements: dict[str, list[str]] = {name: [] for name in _SETS}
    for network in networks:
        for name, own in _elements(network).items():
            elements[name] += own
    sets = {name: f"elements = {{ {', '.join(own)} }}" if own else "" for name, own in elements.items()}
    run_commands(_TABLE.format(table=table, ports=port_rules.declarations(ports), **sets))


def table_stands(table: str) -> bool:
    """Whether it is there. Raises FailedPrecondition when nftables is not to be had."""
    status, listed, _ = _context().cmd("list tables inet")
    return status == 0 and f"table inet {table}" in str(listed).splitlines()


def remove_table(table: str) -> None:
    """Idempotent."""
    run_commands(f"table inet {table}\ndelete table inet {table}\n")


def add_network(table: str, network: Network) -> None:
    """Idempotent. Raises FailedPrecondition."""
    run_commands("".join(f"add element inet {table} {name} {{ {', '.join(own)} }}\n" for name, own in _filled(network)))


def remove_network(table: str, network: Network) -> None:
    """Idempotent. Raises FailedPrecondition."""
    # Added before they are deleted: what is not there cannot be.
    run_commands(
        "".join(
            f"{verb} element inet {table} {name} {{ {', '.join(own)} }}\n"
            for name, own in _filled(network)
            for verb in ("add", "delete")
        )
    )


_SETS = (
    "bridges",
    "internal",
    "talking",
    *(
        f"{name}{version}"
        for name in ("routed", "subnets", "gateways", "own_gateways", "masqueraded")
        for version in (4, 6)
    ),
)


def _filled(network: Network) -> list[tuple[str, list[str]]]:
    return [(name, own) for name, own in _elements(network).items() if own]


def _elements(network: Network) -> dict[str, list[str]]:
    if not network.through_host:
        return {}
    bridge = f'"{network.bridge}"'
    found = {
        "bridges": [bridge],
        "internal": [bridge] if network.internal else [],
        "talking": [f"{bridge} . {bridge}"] if network.icc else [],
    }
    for subnet in network.subnets:
        found |= _elements_of(subnet, bridge, internal=network.internal)
    return found


def _elements_of(subnet: Subnet, bridge: str, *, internal: bool) -> dict[str, list[str]]:
    version, routed = subnet.subnet.version, subnet.gateway_mode is GatewayMode.ROUTED
    return {
        f"routed{version}": [bridge] if routed and not internal else [],
        f"subnets{version}": [f"{bridge} . {subnet.subnet}"],
        f"gateways{version}": [str(subnet.gateway)] if subnet.on_host else [],
        f"own_gateways{version}": [f"{bridge} . {subnet.gateway}"] if subnet.on_host else [],
        f"masqueraded{version}": [str(subnet.subnet)] if not routed and not internal else [],
    }


def run_commands(commands: str) -> None:
    """One transaction. Raises FailedPrecondition when the kernel refuses it."""
    status, _, message = _context().cmd(commands)
    if status != 0:
        raise FailedPrecondition(
            f"nftables refuses our table: {' '.join(str(message).split())}; the kernel needs nf_tables with nat and "
            "masquerade, and the executor CAP_NET_ADMIN",
            reason="NFTABLES_REFUSED",
        )


def _context() -> nftables.Nftables:
    try:
        return nftables.Nftables()
    except OSError as error:
        raise FailedPrecondition(
            f"libnftables cannot be loaded: {error}; install it (Debian: libnftables1)", reason="NFTABLES_MISSING"
        ) from error
