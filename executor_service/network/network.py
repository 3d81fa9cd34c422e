"""A network of the node: as it is asked for, and as it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from executor_service.network.ipam import AddressPool

DEFAULT_NETWORK = "bridge"  # id and name of the one that the executor makes itself

_TUNNEL_PREFIX, _TUNNEL_ID_LENGTH = "vx-", 12  # as long as an interface's name may be


class Driver(StrEnum):
    BRIDGE = "bridge"
    MACVLAN = "macvlan"
    OVERLAY = "overlay"


class MacvlanMode(StrEnum):
    """linux/if_link.h"""

    BRIDGE = "bridge"
    VEPA = "vepa"
    PRIVATE = "private"
    PASSTHRU = "passthru"


@dataclass(frozen=True, slots=True, kw_only=True)
class MacvlanLink:
    """The host's interface whose link a network's containers join, each with a hardware address of its own."""

    parent: str
    mode: MacvlanMode = MacvlanMode.BRIDGE


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayLink:
    """A network that spans nodes, each with a slice of it: the subnets of `Network` are this node's. `vni` and `port`
    (UDP) are the same on every node, and so are `ipv4` and `ipv6`, the whole of each family."""

    vni: int
    port: int
    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None

    @property
    def spans(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(span for span in (self.ipv4, self.ipv6) if span is not None)

    def span(self, version: int) -> IPv4Network | IPv6Network | None:
        return self.ipv4 if version == 4 else self.ipv6


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another node of an overlay network: the address that its frames come from, and its slices."""

    address: IPv4Address | IPv6Address
    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None

    @property
    def slices(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(part for part in (self.ipv4, self.ipv6) if part is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """What an overlay network runs over, as it stands now: this node's own address and the other nodes. A newer
    `version` takes the place of an older one."""

    local: IPv4Address | IPv6Address
    peers: tuple[Peer, ...] = ()
    version: int = 0


class GatewayMode(StrEnum):
    NAT = "nat"
    ROUTED = "routed"
    ISOLATED = "isolated"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetSpec:
    """One family's addresses, as they are asked for: None is chosen by the node."""

    subnet: IPv4Network | IPv6Network | None = None
    gateway: IPv4Address | IPv6Address | None = None
    ip_range: IPv4Network | IPv6Network | None = None
    reserved: tuple[IPv4Address | IPv6Address, ...] = ()
    gateway_mode: GatewayMode = GatewayMode.NAT


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network as it is asked for. A family that is None gets no addresses; `bridge` empty and `mtu` 0 are chosen.
    With neither `macvlan` nor `overlay` it is a bridge; `underlay` goes with `overlay`."""

    id: str
    name: str
    macvlan: MacvlanLink | None = None
    overlay: OverlayLink | None = None
    underlay: Underlay | None = None
    ipv4: SubnetSpec | None = None
    ipv6: SubnetSpec | None = None
    bridge: str = ""
    mtu: int = 0  # bytes
    internal: bool = False
    icc: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One family's addresses, as they stand. `ip_range`: the part that containers get addresses of."""

    subnet: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address
    ip_range: IPv4Network | IPv6Network
    reserved: tuple[IPv4Address | IPv6Address, ...] = ()
    gateway_mode: GatewayMode = GatewayMode.NAT

    @property
    def on_host(self) -> bool:
        """Whether the gateway is an address of the host."""
        return self.gateway_mode is not GatewayMode.ISOLATED

    @property
    def pool(self) -> AddressPool:
        taken = frozenset(int(address) for address in (self.gateway, *self.reserved))
        return AddressPool(self.subnet, self.ip_range, taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network as it stands. `bridge` names its bridge on the host, and is empty when it is none; `mtu` in bytes, 0
    means the default route's, of an overlay network what its underlay leaves."""

    id: str
    name: str
    bridge: str
    macvlan: MacvlanLink | None = None
    overlay: OverlayLink | None = None
    underlay: Underlay | None = None
    ipv4: Subnet | None = None
    ipv6: Subnet | None = None
    mtu: int = 0
    internal: bool = False
    icc: bool = True

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        return tuple(subnet for subnet in (self.ipv4, self.ipv6) if subnet is not None)

    @property
    def spans(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Everything its containers have addresses of, here and on other nodes."""
        return self.overlay.spans if self.overlay is not None else tuple(one.subnet for one in self.subnets)

    @property
    def tunnel(self) -> str:
        """The interface by which its frames reach other nodes; empty without any."""
        return f"{_TUNNEL_PREFIX}{self.id[:_TUNNEL_ID_LENGTH]}" if self.overlay is not None else ""

    @property
    def driver(self) -> Driver:
        if self.overlay is not None:
            return Driver.OVERLAY
        return Driver.BRIDGE if self.macvlan is None else Driver.MACVLAN

    @property
    def through_host(self) -> bool:
        """Whether its packets pass the host's own network stack, by a bridge of ours: rules and published ports are for
        those alone."""
        return self.driver is not Driver.MACVLAN

    def fits(self, spec: NetworkSpec) -> bool:
        """Whether it is what the specification asks for, whatever was chosen for what that leaves open."""
        return (
            (self.name, self.internal, self.icc) == (spec.name, spec.internal, spec.icc)
            and (self.macvlan, self.overlay) == (spec.macvlan, spec.overlay)
            and spec.bridge in {"", self.bridge}
            and spec.mtu in {0, self.mtu}
            and _fits(self.ipv4, spec.ipv4)
            and _fits(self.ipv6, spec.ipv6)
        )


def _fits(subnet: Subnet | None, spec: SubnetSpec | None) -> bool:
    if subnet is None or spec is None:
        return subnet is None and spec is None
    return (
        spec.subnet in {None, subnet.subnet}
        and spec.gateway in {None, subnet.gateway}
        and spec.ip_range in {None, subnet.ip_range}
        and (spec.reserved, spec.gateway_mode) == (subnet.reserved, subnet.gateway_mode)
    )


def resolve_subnet(spec: SubnetSpec, subnet: IPv4Network | IPv6Network) -> Subnet:
    """The specification with this subnet, its first address as gateway unless it names one."""
    return Subnet(
        subnet=subnet,
        gateway=spec.gateway or subnet.network_address + 1,
        ip_range=spec.ip_range or subnet,
        reserved=spec.reserved,
        gateway_mode=spec.gateway_mode,
    )


def gateway_order(networks: Iterable[tuple[int, Network]]) -> list[Network]:
    """(priority, network) of a container's endpoints, the one that is to be its gateway first. An internal network is
    none."""
    candidates = [(priority, network) for priority, network in networks if not network.internal]
    candidates.sort(key=lambda one: (-one[0], -len(one[1].subnets), one[1].name))
    return [network for _, network in candidates]
