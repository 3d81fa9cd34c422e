"""A network as its node knows it."""

from __future__ import annotations

from dataclasses import dataclass

from api_service.records.network import Macvlan, Subnet


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
