"""Networks as a node knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from api_service.deadline import Deadline
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


class NodeNetworks(Protocol):
    """Every method raises as those of ExecutorClient do, and the errors named with it."""

    async def create(self, network: StoredNetwork, *, deadline: Deadline) -> StoredNetwork:
        """With what is empty chosen by the node. Raises FailedPrecondition when it is there otherwise or collides with
        what the node has, ResourceExhausted when no subnet is free."""

    async def remove(self, network_id: str, *, deadline: Deadline) -> None:
        """Nothing there: nothing happens. Raises FailedPrecondition while a container names it."""

    async def list(self, *, deadline: Deadline) -> Sequence[StoredNetwork]:
        """The default one, `bridge`, too."""

    async def set_overlay_peers(self, network_id: str, underlay: Underlay, *, deadline: Deadline) -> None:
        """Which other nodes an overlay network has, as a whole. Raises FailedPrecondition (reason `NO_SUCH_NETWORK`)
        when the node does not have it."""

    async def set_names_elsewhere(
        self,
        network_id: str,
        containers: Sequence[ContainerElsewhere],
        *,
        version: int,
        renumbered: bool,
        deadline: Deadline,
    ) -> int:
        """What its containers on other nodes are called, as a whole. Returns the version that the node has then: a
        greater one if it was told something newer, unless the versions were `renumbered`. Raises as the one above."""
