"""A network sandbox: a network namespace with its addresses, an object with a life of its own.

It exists before the container's process and after it; today one container is in it, a pod's containers may share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from executor_service.container import NetworkMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The sandbox's attachment to the default bridge. Addresses are plain (`10.1.2.3`), lengths in bits."""

    network: str  # "bridge"
    interface: str  # "eth0"
    mac_address: str
    ipv4_address: str
    ipv4_prefix_length: int
    ipv4_gateway: str
    ipv6_address: str
    ipv6_prefix_length: int
    ipv6_gateway: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """`netns_path` names the namespace; empty for the host's own."""

    id: str
    mode: NetworkMode
    netns_path: str
    endpoint: Endpoint | None = None


class SandboxNetwork(Protocol):
    """Makes and destroys sandboxes. State is durable: leases survive SIGKILL and are reconciled at start-up."""

    async def create(self, sandbox_id: str, *, mode: NetworkMode, mac_address: str = "") -> Sandbox:
        """Make the namespace and wire it. Idempotent by `sandbox_id`. Undoes itself whole on error and cancel. Raises
        ResourceExhausted when no address is free, FailedPrecondition when the bridge cannot be had."""

    async def destroy(self, sandbox_id: str) -> None:
        """Free the namespace, interface and addresses. Idempotent."""

    async def list(self) -> list[Sandbox]:
        """Every sandbox that is recorded."""

    async def reconcile(self, keep: set[str]) -> None:
        """At start-up: adopt the sandboxes in `keep` that still exist, destroy every other one and whatever a crash
        left half made (namespaces, veths, leases)."""
