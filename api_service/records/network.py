"""The record of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BRIDGE_DRIVER, MACVLAN_DRIVER, OVERLAY_DRIVER = "bridge", "macvlan", "overlay"
DEFAULT_NETWORK = "bridge"  # id and name of the one that every node has
MODE_DRIVERS = {"host": "host", "none": "null"}  # Docker's, of the network modes that it shows as networks


class GatewayMode(StrEnum):
    NAT = "nat"
    ROUTED = "routed"
    ISOLATED = "isolated"


class MacvlanMode(StrEnum):
    BRIDGE = "bridge"
    VEPA = "vepa"
    PRIVATE = "private"
    PASSTHRU = "passthru"


@dataclass(frozen=True, slots=True, kw_only=True)
class Macvlan:
    """The node's interface whose link the containers join, and how they reach each other there."""

    parent: str
    mode: MacvlanMode = MacvlanMode.BRIDGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A node's part of an overlay network, in CIDR notation, empty where the network has none of the family, and the
    address that other nodes send to. `made`: the node has the network."""

    address: str
    ipv4: str = ""
    ipv6: str = ""
    made: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A network that spans nodes: its subnets are cut into slices, one a node, by the node's name. `slice_prefix_…` in
    bits. `version` grows with every change of the slices that other nodes must know of."""

    vni: int
    port: int
    slice_prefix_ipv4: int
    slice_prefix_ipv6: int
    slices: Mapping[str, Slice] = field(default_factory=dict)
    version: int = 1


class NetworkPhase(StrEnum):
    CREATING = "creating"  # not there for anybody else
    READY = "ready"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One family's addresses: subnets in CIDR notation, addresses plain, `aux_addresses` by a name. What is empty is
    chosen by the node. `configured`: the subnet was given, so containers may ask for addresses of it."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: Mapping[str, str] = field(default_factory=dict)
    gateway_mode: GatewayMode = GatewayMode.NAT
    configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecord:
    """A family that is None gets no addresses. `bridge` names the bridge on the node, `mtu` in bytes; empty and 0 are
    chosen there. `node` is empty for an overlay network, which spans them. `created_at`: nanoseconds since the epoch.
    `creator`: the replica of the API that makes it, or did."""

    id: str
    name: str
    created_at: int
    node: str
    driver: str = BRIDGE_DRIVER
    ipv4: Subnet | None = None
    ipv6: Subnet | None = None
    bridge: str = ""
    mtu: int = 0
    internal: bool = False
    icc: bool = True
    host_binding_ipv4: str = ""
    macvlan: Macvlan | None = None
    overlay: Overlay | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    phase: NetworkPhase = NetworkPhase.READY
    creator: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is on one node, so that its containers are."""
        return self.driver in (BRIDGE_DRIVER, MACVLAN_DRIVER)
