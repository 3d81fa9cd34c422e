"""What publishing the ports of a container means, whoever does it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from executor_service.network.port_allocation import Targets
from executor_service.ports import BoundPort, PublishedPort


def _nothing_to_write(_: sqlite3.Connection) -> None: ...


def _nothing_to_do() -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Where a container's ports lead from now on. It holds when `write` was called in a transaction and `committed`
    after its commit; until then `revert` takes it back. `changed`: there is something to write."""

    bound: tuple[BoundPort, ...] = ()
    changed: bool = False
    write: Callable[[sqlite3.Connection], None] = _nothing_to_write
    committed: Callable[[], None] = _nothing_to_do


class PortPublisher(Protocol):
    """Ports of the host that lead to containers. State is durable; every method is idempotent. The caller holds the
    container's lock."""

    async def publish(self, container_id: str, ports: Sequence[PublishedPort], *, targets: Targets) -> Publication:
        """Lead the ports to these addresses of the container, and what else was published of it nowhere. Raises
        AlreadyExists (`PORT_ALLOCATED`) for a port that is taken, ResourceExhausted when there is none left to choose,
        FailedPrecondition for an address that the host, or a family that the container, does not have; everything is
        as it was then."""

    async def suspend(self, container_id: str) -> Publication:
        """Nothing leads to it. Ports that were chosen here stay its own."""

    async def revert(self, container_id: str) -> None:
        """What was changed and is not on record is as it was before."""

    async def withdraw(self, container_id: str) -> None:
        """The container does not run any more: nothing leads to it, and that is on record."""

    async def forget(self, container_id: str) -> None:
        """The container is removed: nothing is its own any more."""

    async def reconcile(self, *, running: Collection[str], known: Collection[str]) -> None:
        """At start-up, to be called before the first publish: withdraw and forget what is of others."""
