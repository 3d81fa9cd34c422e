"""A network as its node knows it."""

from __future__ import annotations

from dataclasses import dataclass

from api_service.records.network import Macvlan, Subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayPeer:
    """Another node of an overlay network: see Slice."""

    address: str
    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """What an overlay network runs over on a node: its own address and all other nodes. The greater `version`
    counts."""

    local: str
    peers: tuple[OverlayPeer, ...]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayLink:
    """`ipv4` and `ipv6`: the whole network in CIDR notation, empty without the family; its subnets are the node's."""

    vni: int
    port: int
    ipv4: str
    ipv6: str
    underlay: Underlay


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerElsewhere:
    """One that runs on another node. `names`: its own first. `addresses` plain."""

    id: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNetwork:
    """Asked for, with what is empty to be chosen by the node; answered, with everything filled in."""

    id: str
    name: str
    ipv4: Subnet | None = None
    ipv6: Subnet | None = None
    bridge: str = ""
    mtu: int = 0
    internal: bool = False
    icc: bool = True
    macvlan: Macvlan | None = None
    overlay: OverlayLink | None = None
