"""A network sandbox: a network namespace with its addresses, an object with a life of its own.

It exists before a container's process and after it. The container that it was made for and those that share it are its
members; it goes with the last of them, so that whoever shares it keeps it while its owner restarts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from executor_service.container import AS_THE_HOST, EndpointSpec, NameResolution, NetworkMode
from executor_service.network.network import Driver
from executor_service.user_namespaces import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The sandbox's attachment to a network. Addresses are plain (`10.1.2.3`) and empty where the network has none of
    the family, lengths in bits. A span is the whole network where the link is only this node's part of it: what is
    reached by its gateway, whatever the way out is."""

    network_id: str
    network_name: str
    network_driver: Driver = Driver.BRIDGE
    interface: str
    mac_address: str
    ipv4_address: str = ""
    ipv4_prefix_length: int = 0
    ipv4_gateway: str = ""
    ipv4_span: IPv4Network | None = None
    ipv6_address: str = ""
    ipv6_prefix_length: int = 0
    ipv6_gateway: str = ""
    ipv6_span: IPv6Network | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """`id` is that of the container it was made for. `netns_path` names the namespace; empty for the host's own.
    `endpoints` in the order of their interfaces. `resolution`: how that container has names resolved, which holds for
    all that share it, also when it is gone."""

    id: str
    mode: NetworkMode
    netns_path: str
    endpoints: tuple[Endpoint, ...] = ()
    resolution: NameResolution = AS_THE_HOST


class SandboxNetwork(Protocol):
    """Makes and destroys sandboxes. State is durable: leases survive SIGKILL and are reconciled at start-up."""

    async def create(
        self,
        sandbox_id: str,
        *,
        mode: NetworkMode,
        endpoints: Sequence[EndpointSpec] = (),
        owner: Owner | None = None,
        resolution: NameResolution = AS_THE_HOST,
    ) -> Sandbox:
        """Make the namespace and wire it, or go on with the one that a member has kept, attached to what is asked for
        now. The container has the addresses and hardware addresses of its last sandbox, as far as nothing else is asked
        for and nobody was given them meanwhile. `owner`: the user namespace that a new one belongs to, None for the
        node's. Idempotent. Undoes itself whole on error and cancel. Raises ResourceExhausted when no address is free,
        AlreadyExists when a fixed one is taken, FailedPrecondition when a network cannot be had."""

    async def join(self, member: str, sandbox_id: str) -> Sandbox:
        """Make the container a member of another one's sandbox. Idempotent. Raises FailedPrecondition when there is
        none."""

    async def leave(self, member: str) -> None:
        """The container has ended. The last member's end frees the namespace, interfaces and addresses: for others
        after a while, for the container itself at once. Idempotent."""

    async def forget(self, container_id: str) -> None:
        """The container is removed: the addresses that it had are kept for it no longer. Idempotent."""

    async def connect(self, sandbox_id: str, endpoint: EndpointSpec) -> Sandbox:
        """Attach a sandbox that stands to one more network. Idempotent. Undoes itself; raises as `create` does."""

    async def disconnect(self, sandbox_id: str, network_id: str) -> Sandbox | None:
        """Detach it. Idempotent. None when there is no sandbox."""

    async def list(self) -> Sequence[Sandbox]:
        """Every sandbox that is recorded."""

    async def reconcile(self, keep: Mapping[str, Sequence[EndpointSpec] | None]) -> None:
        """At start-up: of the members only those in `keep` are left, each sandbox with the endpoints that stand there
        for its owner; None: with those it has. Destroys every other one and whatever a crash left half made
        (namespaces, veths, leases)."""
