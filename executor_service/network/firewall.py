"""Our nftables table: what leaves a network is masqueraded, networks are kept apart, published ports lead into them;
nobody's policy is touched.

The rules are few and the same however many networks there are: what differs between them stands in sets. The whole
table is replaced in one transaction, so there is no instant without it, and repeating it changes nothing; a network
more or less changes elements only. Through libnftables (libnftables-json(5), nft(8)); all calls block, and act on the
calling thread's network namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import nftables

from common.errors import FailedPrecondition
from executor_service.network import port_rules
from executor_service.network.memory import give_back_memory
from executor_service.network.network import GatewayMode, Network, OverlayLink, Subnet, Underlay
from executor_service.network.port_leases import Lease

_MANY = 16 * 1024  # characters of commands: some hundred elements, for each of which libnftables takes kilobytes

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
    set tunnels {{ type ifname; {tunnels} }}
    set spanning {{ type ifname . ifname; {spanning} }}
    set spans4 {{ type ifname . ipv4_addr; flags interval; {spans4} }}
    set spans6 {{ type ifname . ipv6_addr; flags interval; {spans6} }}
    set elsewhere4 {{ type ifname . ipv4_addr; flags interval; {elsewhere4} }}
    set elsewhere6 {{ type ifname . ipv6_addr; flags interval; {elsewhere6} }}
    set segments {{ typeof udp dport . @th,96,24; {segments} }}
    set peers4 {{ typeof udp dport . @th,96,24 . ip saddr; {peers4} }}
    set peers6 {{ typeof udp dport . @th,96,24 . ip6 saddr; {peers6} }}
    set masqueraded4 {{ type ipv4_addr; flags interval; {masqueraded4} }}
    set masqueraded6 {{ type ipv6_addr; flags interval; {masqueraded6} }}
{ports}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname @tunnels jump from_tunnels
        iifname @bridges udp dport . @th,96,24 @segments drop comment "a node's frames come from no container"
        udp dport . @th,96,24 @segments jump from_underlay
        iifname @bridges jump from_containers
    }}
    chain from_underlay {{
        udp dport . @th,96,24 . ip saddr @peers4 accept
        udp dport . @th,96,24 . ip6 saddr @peers6 accept
        drop comment "a frame of an overlay network from a machine that is none of its nodes"
    }}
    chain from_tunnels {{
        iifname . ip saddr != @elsewhere4 drop comment "forged source address"
        iifname . ip6 saddr != @elsewhere6 drop
        ct state established,related accept comment "the answer to this node"
        drop comment "containers of other nodes reach containers, not the node"
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
        iifname @tunnels iifname . ip saddr != @elsewhere4 drop comment "forged source address"
        iifname @tunnels iifname . ip6 saddr != @elsewhere6 drop
        iifname @bridges iifname . ip saddr != @subnets4 drop comment "forged source address"
        iifname @bridges iifname . ip6 saddr != @subnets6 drop
        iifname @bridges udp dport . @th,96,24 @segments drop comment "would be taken for a frame of this node"
        iifname . oifname @spanning accept comment "an overlay network's containers and its other nodes"
        iifname @tunnels drop
        oifname @tunnels drop
        iifname . ip daddr @spans4 reject with icmpx type no-route comment "a part of the network that no node has"
        iifname . ip6 daddr @spans6 reject with icmpx type no-route
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
        oifname @tunnels accept comment "containers keep their addresses on other nodes"
        ct status dnat ip saddr 127.0.0.0/8 oifname != "lo" masquerade comment "the host's answer to itself"
        ct status dnat oifname . ip saddr @subnets4 masquerade comment "a neighbour would answer past the host"
        ct status dnat oifname . ip6 saddr @subnets6 masquerade
        ip saddr @masqueraded4 oifname . ip saddr != @subnets4 masquerade
        ip6 saddr @masqueraded6 oifname . ip6 saddr != @subnets6 masquerade
    }}
}}
"""


def install_table(table: str, networks: Iterable[Network], ports: Iterable[Lease] = (), *, forwarder: int = 0) -> None:
    """Put our table in place, whatever it held before; `forwarder` as in `port_rules`. Raises FailedPrecondition when
    nftables is not to be had."""
    elements: dict[str, list[str]] = {name: [] for name in _SETS}
    for network in networks:
        for name, own in _elements(network).items():
            elements[name] += own
    sets = {name: f"elements = {{ {', '.join(own)} }}" if own else "" for name, own in elements.items()}
    run_commands(_TABLE.format(table=table, ports=port_rules.declarations(ports, forwarder=forwarder), **sets))


def table_stands(table: str) -> bool:
    """Whether it is there. Raises FailedPrecondition when nftables is not to be had."""
    status, listed, _ = _context().cmd("list tables inet")
    return status == 0 and f"table inet {table}" in str(listed).splitlines()


def remove_table(table: str) -> None:
    """Idempotent."""
    run_commands(f"table inet {table}\ndelete table inet {table}\n")


def add_network(table: str, network: Network) -> None:
    """Idempotent. Raises FailedPrecondition."""
    run_commands("".join(_with(table, name, own) for name, own in _filled(network)))


def change_network(table: str, before: Network, after: Network, *, whole: bool = True) -> None:
    """What is new comes and what is no more goes, in one transaction; `whole`: and what should have been there before.
    Idempotent. Raises FailedPrecondition."""
    known = {name: dict.fromkeys(own) for name, own in _filled(before)}
    wanted = {name: dict.fromkeys(own) for name, own in _filled(after)}
    commands = ""
    for name, own in known.items():
        if gone := [element for element in own if element not in wanted.get(name, ())]:
            commands += _without(table, name, gone)
    for name, own in wanted.items():
        if coming := [element for element in own if whole or element not in known.get(name, ())]:
            commands += _with(table, name, coming)
    if commands:
        run_commands(commands)


def remove_network(table: str, network: Network) -> None:
    """Idempotent. Raises FailedPrecondition."""
    run_commands("".join(_without(table, name, own) for name, own in _filled(network)))


def _with(table: str, name: str, elements: Sequence[str]) -> str:
    return f"add element inet {table} {name} {{ {', '.join(elements)} }}\n"


def _without(table: str, name: str, elements: Sequence[str]) -> str:
    """Added before they are deleted: what is not there cannot be."""
    return _with(table, name, elements) + f"delete element inet {table} {name} {{ {', '.join(elements)} }}\n"


_BY_FAMILY = ("routed", "subnets", "gateways", "own_gateways", "spans", "elsewhere", "peers", "masqueraded")
_SETS = (
    "bridges",
    "internal",
    "talking",
    "tunnels",
    "spanning",
    "segments",
    *(f"{name}{version}" for name in _BY_FAMILY for version in (4, 6)),
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
    if network.overlay is not None and network.underlay is not None:
        found |= _overlay_elements(network, network.overlay, network.underlay)
    return found


def _overlay_elements(network: Network, link: OverlayLink, underlay: Underlay) -> dict[str, list[str]]:
    bridge, tunnel, segment = f'"{network.bridge}"', f'"{network.tunnel}"', f"{link.port} . {link.vni}"
    found = {
        "tunnels": [tunnel],
        "spanning": [f"{bridge} . {tunnel}", f"{tunnel} . {bridge}"] if network.icc else [],
        "segments": [segment],
    }
    for version in (4, 6):
        span = link.span(version)
        slices = [part for peer in underlay.peers for part in peer.slices if part.version == version]
        found |= {
            f"spans{version}": [f"{bridge} . {span}"] if span is not None else [],
            f"elsewhere{version}": [f"{tunnel} . {part}" for part in slices],
            f"peers{version}": [
                f"{segment} . {peer.address}" for peer in underlay.peers if peer.address.version == version
            ],
        }
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
    if len(commands) > _MANY:
        give_back_memory()


def _context() -> nftables.Nftables:
    try:
        return nftables.Nftables()
    except OSError as error:
        raise FailedPrecondition(
            f"libnftables cannot be loaded: {error}; install it (Debian: libnftables1)", reason="NFTABLES_MISSING"
        ) from error
