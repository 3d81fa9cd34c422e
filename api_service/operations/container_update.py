"""Change a container's limits, restart policy and published ports.

The record says beforehand that the node may come to hold other values than it does, the node changes them whole or not
at all, and then the record has them. Whatever interrupts that, what is not in the record is taken back on the node, now
or when it answers again: an update that was not acknowledged did not happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from api_service.deadline import Deadline
from api_service.executor_client.journal import JournalEntry
from api_service.operations.container_start import holder_named
from api_service.operations.container_state import current, refuse_when_going
from api_service.operations.engine import Engine
from api_service.operations.host_facts import host_facts
from api_service.operations.node_resources import node_resources
from api_service.operations.published_ports import published_ports, validate_published_ports
from api_service.records.config import HostConfig, RestartPolicy
from api_service.records.container import ContainerRecord
from api_service.records.container_repository import Changed
from api_service.records.event_shapes import container_event
from api_service.records.resources import Resources
from api_service.validation.host_facts import HostFacts
from api_service.validation.port_changes import (
    PortChanges,
    changed_ports,
    normalise_port_changes,
    port_change_warnings,
    validate_port_changes,
)
from api_service.validation.resources import fit_resources, validate_resources
from api_service.validation.restart_policy import normalise_restart_policy, validate_restart_policy, validate_unhealthy
from common.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound, SlipwayError, Unavailable

_TAKE_BACK_TIME = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    """`resources`: what is not given stays. `restart_policy`: None stays. `ports`: what is not named stays."""

    resources: Resources
    restart_policy: RestartPolicy | None = None
    ports: PortChanges = field(default_factory=PortChanges)


async def update_container(
    engine: Engine, container: str, request: UpdateRequest, *, deadline: Deadline
) -> Sequence[str]:
    """Warnings, a sentence each. Raises InvalidArgument with every violation, FailedPrecondition for what the kernel
    refuses, AlreadyExists for a port that is taken, NotFound, ResourceExhausted, Unavailable."""
    record = await engine.containers.find(container)
    refuse_when_going(record, "update")
    return await engine.jobs.finish(_update(engine, record.id, request, deadline), name=f"update {record.name}")


async def _update(engine: Engine, container_id: str, request: UpdateRequest, deadline: Deadline) -> Sequence[str]:
    async with engine.locks.hold(container_id, "update", deadline), deadline.enforced("update the container"):
        record = await current(engine, container_id)
        refuse_when_going(record, "update")
        facts = host_facts(await engine.nodes.get(record.node).facts(deadline))
        wanted, warnings = _changed(record, request, facts)
        await _mark(engine, record.id, unsettled=True)
        try:
            entry = await _tell_node(engine, record, wanted, deadline)
        except (Unavailable, DeadlineExceeded, asyncio.CancelledError):
            engine.jobs.background(settle_update(engine, record.id), name=f"take back update {record.name}")
            raise
        except SlipwayError as error:
            await _mark(engine, record.id, unsettled=False)
            raise (await holder_named(engine, error) if isinstance(error, AlreadyExists) else error) from error
        await _commit(engine, record.id, wanted, entry.time)
        return warnings


async def settle_update(engine: Engine, container_id: str) -> None:
    """Bring the node back to what the record says, if an update of it was cut off."""
    deadline = Deadline.after(_TAKE_BACK_TIME)
    async with engine.locks.hold(container_id, "update", deadline):
        stored = await engine.containers.get(container_id)
        if stored is None or not stored.record.update_unsettled:
            return
        # Of a container that the node lost there is nothing to take back.
        with contextlib.suppress(NotFound):
            await _tell_node(engine, stored.record, stored.record.host_config, deadline)
        await _mark(engine, container_id, unsettled=False)


def _changed(record: ContainerRecord, request: UpdateRequest, facts: HostFacts) -> tuple[HostConfig, Sequence[str]]:
    host = record.host_config
    merged = merge_resources(host.resources, request.resources)
    violations = validate_resources(merged, facts, "resources", current=host.resources)
    policy = host.restart_policy
    if request.restart_policy is not None:
        policy = request.restart_policy
        violations += validate_restart_policy(policy, "restart_policy", auto_remove=host.auto_remove)
        violations += validate_unhealthy(policy, record.config.healthcheck, "restart_policy")
    ports = changed_ports(host, request.ports)
    broken = validate_port_changes(ports, request.ports, record.config.exposed_ports)
    violations += broken or validate_published_ports(record.config, ports, "publish_all_ports")
    if violations:
        raise InvalidArgument(violations=violations)
    fitted = fit_resources(merged, facts, "resources")
    changed = dataclasses.replace(
        normalise_port_changes(ports), resources=fitted.resources, restart_policy=normalise_restart_policy(policy)
    )
    return changed, [*fitted.warnings, *port_change_warnings(host, request.ports)]


def merge_resources(current: Resources, asked: Resources) -> Resources:
    """Fields that are not given stay."""
    nothing = Resources()
    given = {
        field.name: getattr(asked, field.name)
        for field in dataclasses.fields(Resources)
        if getattr(asked, field.name) != getattr(nothing, field.name)
    }
    return dataclasses.replace(current, **given)


async def _tell_node(engine: Engine, record: ContainerRecord, wanted: HostConfig, deadline: Deadline) -> JournalEntry:
    node = engine.nodes.get(record.node)
    entry = await node.executor.containers.update(
        record.id,
        resources=node_resources(wanted.resources),
        restart_policy=normalise_restart_policy(wanted.restart_policy),
        published_ports=published_ports(record.config, wanted),
        deadline=deadline,
    )
    await node.settle(entry)
    return entry


async def _mark(engine: Engine, container_id: str, *, unsettled: bool) -> None:
    await engine.containers.update(
        container_id, lambda record: Changed(record=dataclasses.replace(record, update_unsettled=unsettled))
    )


async def _commit(engine: Engine, container_id: str, wanted: HostConfig, time: int) -> None:
    def change(record: ContainerRecord) -> Changed:
        changed = dataclasses.replace(record, host_config=wanted, update_unsettled=False)
        return Changed(record=changed, events=[container_event(changed, "update", time)])

    await engine.containers.update(container_id, change)
