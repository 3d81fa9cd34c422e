"""What the operations ask of this node's networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from executor_service.network.network import Network, NetworkSpec, Underlay


class NetworkStore(Protocol):
    """The networks of this node. State is durable; every method is idempotent."""

    async def create(self, spec: NetworkSpec) -> Network:
        """Raises FailedPrecondition when it is there otherwise, or its subnet or bridge is somebody else's, and
        ResourceExhausted when no subnet is free."""

    async def remove(self, network_id: str) -> None:
        """Nothing there: nothing happens. Raises FailedPrecondition while a sandbox is attached, and for the default
        one."""

    async def set_underlay(self, network_id: str, underlay: Underlay) -> Network:
        """Which other nodes an overlay network has, as a whole. One that is older than what it has changes nothing.
        Raises FailedPrecondition when there is no such network, or this node's address is none of its own."""

    def list(self) -> Sequence[Network]:
        """Every network, the default one first."""

    def find(self, network_id: str) -> Network | None: ...
