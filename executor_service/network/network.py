"""A network of the node: as it is asked for, and as it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from executor_service.network.ipam import AddressPool

DEFAULT_NETWORK = "bridge"  # id and name of the one that the executor makes itself


class Driver(StrEnum):
    BRIDGE = "bridge"
    MACVLAN = "macvlan"


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
    `macvlan` None: it is a bridge."""

    id: str
    name: str
    macvlan: MacvlanLink | None = None
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
    means the default route's."""

    id: str
    name: str
    bridge: str
    macvlan: MacvlanLink | None = None
    ipv4: Subnet | None = None
    ipv6: Subnet | None = None
    mtu: int = 0
    internal: bool = False
    icc: bool = True

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        return tuple(subnet for subnet in (self.ipv4, self.ipv6) if subnet is not None)

    @property
    def driver(self) -> Driver:
        return Driver.BRIDGE if self.macvlan is None else Driver.MACVLAN

    @property
    def through_host(self) -> bool:
        """Whether its packets pass the host's own network stack: rules and published ports are for those alone."""
        return self.driver is Driver.BRIDGE

    def fits(self, spec: NetworkSpec) -> bool:
        """Whether it is what the specification asks for, whatever was chosen for what that leaves open."""
        return (
            (self.name, self.internal, self.icc, self.macvlan) == (spec.name, spec.internal, spec.icc, spec.macvlan)
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
