"""What a kind of network is to this host: the seam between the networks that are asked for and the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from executor_service.network.network import Network
from executor_service.network.sandbox import Endpoint
from executor_service.network.wiring import Attachment


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLink:
    """The host's interface that a network stands on: its index and MTU (bytes); `created` when this call made it."""

    index: int
    mtu: int
    created: bool = False


class NetworkDriver(Protocol):
    """One kind of network. `ensure` and `delete` block."""

    def ensure(self, network: Network) -> HostLink:
        """Have what the network stands on. Idempotent; undone when it fails. Raises FailedPrecondition when it is not
        to be had or is somebody else's, OSError."""

    def delete(self, network: Network) -> None:
        """Idempotent. What was not made for this network stays. Raises OSError."""

    def found(self, network: Network) -> HostLink | None:
        """What has come later than `ensure` could find it, if it can be used as it is. Does not block."""

    def stands(self, network: Network, link: HostLink) -> bool:
        """Whether what `ensure` found is still there."""

    def gone(self, network: Network) -> str:
        """What is to be said when it is not, and the way out."""

    def attachment(self, network: Network, link: HostLink | None, *, name: str, endpoint: Endpoint) -> Attachment:
        """A sandbox's interface on the network. `name` is free on the host and never given twice. `link` None: one that
        can only be deleted."""
