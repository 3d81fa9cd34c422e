"""Delete networks: one by name, or all that no container is attached to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import structlog

from api_service.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.label_filter import passes_labels
from api_service.operations.network_list import networks_of
from api_service.operations.network_spread import withdraw_everywhere
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import network_life_event
from api_service.records.network import NetworkPhase, NetworkRecord
from api_service.validation.network_mode import PREDEFINED
from common.errors import DeadlineExceeded, FailedPrecondition, SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

_MAX_SHOWN = 5


async def remove_network(engine: Engine, reference: str, *, deadline: Deadline) -> None:
    """Raises NotFound, FailedPrecondition for one that is always there (`NETWORK_PREDEFINED`) or that a container is
    attached to (`NETWORK_IN_USE`), Unavailable."""
    if reference in PREDEFINED:
        raise _refused(reference, "is always there and cannot be removed", reason="NETWORK_PREDEFINED")
    network = await engine.networks.find(reference)
    await engine.jobs.finish(remove_unused(engine, network, deadline), name=f"remove network {network.name}")


async def prune_networks(
    engine: Engine, *, labels: Sequence[str], until: int | None, deadline: Deadline
) -> Sequence[str]:
    """Names of those that were deleted. A label with a leading `!` must not hold. `until`: nanoseconds since the
    epoch."""
    used = networks_of(await engine.containers.every_phase())
    gone: list[str] = []
    for network in await engine.networks.all():
        if network.id in used or (until is not None and network.created_at >= until):
            continue
        if not passes_labels(network.labels, labels):
            continue
        try:
            removal = remove_unused(engine, network, deadline)
            await engine.jobs.finish(removal, name=f"prune network {network.name}")
        except FailedPrecondition as error:
            _log.info("network not pruned", network=network.name, reason=error.message)
        else:
            gone.append(network.name)
    return gone


async def remove_unused(engine: Engine, network: NetworkRecord, deadline: Deadline) -> None:
    """Delete it everywhere. Nothing there: nothing happens. When its node does not answer it is finished when that
    does."""
    async with engine.network_locks.hold(network.id, "remove", deadline):
        if users := await _users(engine, network):
            raise _in_use(network, users)
        marked = await _mark(engine, network, NetworkPhase.REMOVING)
        if marked is None:
            return
        try:
            await _remove_from_nodes(engine, marked, deadline)
        except (Unavailable, DeadlineExceeded):
            raise  # whether it happened is unknown; the mark stays
        except SlipwayError:
            await _mark(engine, network, NetworkPhase.READY)
            raise
        await engine.networks.delete(network.id, [network_life_event(network, "destroy", engine.clock())])


async def _remove_from_nodes(engine: Engine, network: NetworkRecord, deadline: Deadline) -> None:
    if network.overlay is not None:
        await withdraw_everywhere(engine, network, deadline)
    else:
        await engine.nodes.get(network.node).executor.networks.remove(network.id, deadline=deadline)


async def _users(engine: Engine, network: NetworkRecord) -> list[ContainerRecord]:
    """Containers of every phase: one that is being created counts, too."""
    return [
        record
        for record in await engine.containers.every_phase()
        if any(endpoint.network_id == network.id for endpoint in record.networking_config.endpoints.values())
    ]


async def _mark(engine: Engine, network: NetworkRecord, phase: NetworkPhase) -> NetworkRecord | None:
    return await engine.networks.update(network.id, lambda found: dataclasses.replace(found, phase=phase))


def _in_use(network: NetworkRecord, users: Sequence[ContainerRecord]) -> FailedPrecondition:
    shown = ", ".join(user.name for user in users[:_MAX_SHOWN])
    more = f" and {len(users) - _MAX_SHOWN} more" if len(users) > _MAX_SHOWN else ""
    why = f"has containers attached: {shown}{more}; disconnect or remove them first"
    return _refused(network.name, why, reason="NETWORK_IN_USE")


def _refused(name: str, why: str, *, reason: str) -> FailedPrecondition:
    return FailedPrecondition(f"network {name!r} {why}", resource_type="network", resource_name=name, reason=reason)
