"""Attach a container to a network and detach it, at once when it runs."""

from __future__ import annotations

import dataclasses

import structlog

from api_service.deadline import Deadline
from api_service.nodes.endpoints import endpoint_spec
from api_service.operations.container_start import holder_named
from api_service.operations.container_state import current, refuse_when_going, wrong_state
from api_service.operations.engine import Engine
from api_service.operations.network_attach import network_violations, require_on_node, require_usable
from api_service.operations.network_list import find_network
from api_service.operations.network_spread import spread_to
from api_service.records.config import EndpointSettings
from api_service.records.container import ContainerRecord
from api_service.records.container_repository import Changed
from api_service.records.network import DEFAULT_NETWORK, NetworkRecord
from api_service.validation.network_mode import PREDEFINED, has_networks, validate_endpoint
from common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, SlipwayError

_log = structlog.get_logger(__name__)


async def connect_container(
    engine: Engine, network: str, container: str, settings: EndpointSettings, *, deadline: Deadline
) -> None:
    """Raises InvalidArgument with every violation, NotFound, AlreadyExists when it is attached, or a fixed address or
    a published port is taken, FailedPrecondition for a network mode without networks, ResourceExhausted,
    Unavailable."""
    found = await find_network(engine, network)
    broken = validate_endpoint(settings, found.name, "endpoint")
    broken += network_violations(settings, found, "endpoint") if not broken else []
    if broken:
        raise InvalidArgument(violations=broken)
    record = await engine.containers.find(container)
    _require_connectable(record, found)
    require_usable(found)
    require_on_node(found, record.node)
    asked = dataclasses.replace(settings, mac_address=settings.mac_address.lower(), network_id=found.id)
    await engine.jobs.finish(
        _connect(engine, record.id, found, asked, deadline), name=f"connect {record.name} to {found.name}"
    )


async def disconnect_container(engine: Engine, network: str, container: str, *, deadline: Deadline) -> None:
    """Raises NotFound, FailedPrecondition when it is not attached, Unavailable."""
    found = await find_network(engine, network)
    record = await engine.containers.find(container)
    _require_connectable(record, found)
    await engine.jobs.finish(
        _disconnect(engine, record.id, found, deadline), name=f"disconnect {record.name} from {found.name}"
    )


async def tell_names(engine: Engine, container_id: str, deadline: Deadline) -> None:
    """Let the node know what a container is called now. What fails is told when the node answers again: the container
    has its name."""
    try:
        async with engine.locks.hold(container_id, "rename", deadline), deadline.enforced("tell the container's name"):
            record = await current(engine, container_id)
            if not record.names_untold:
                return
            for settings in record.networking_config.endpoints.values():
                if settings.network_id != DEFAULT_NETWORK:
                    await _tell_name(engine, record, settings, deadline)
            await engine.containers.update(container_id, lambda found: _told(found, record.name))
    except SlipwayError as error:
        _log.warning("new name not told to the node", container=container_id, error=error.message)


async def _tell_name(engine: Engine, record: ContainerRecord, settings: EndpointSettings, deadline: Deadline) -> None:
    node = engine.nodes.get(record.node)
    entry = await node.executor.containers.connect_network(
        record.id, endpoint_spec(record, settings), deadline=deadline
    )
    if entry is not None:
        await node.settle(entry)


def _told(found: ContainerRecord, name: str) -> Changed:
    return Changed(record=dataclasses.replace(found, names_untold=found.name != name))


async def _connect(
    engine: Engine, container_id: str, network: NetworkRecord, settings: EndpointSettings, deadline: Deadline
) -> None:
    async with engine.locks.hold(container_id, "connect", deadline), deadline.enforced("connect the container"):
        record = await current(engine, container_id)
        _require_connectable(record, network)
        if network.name in record.networking_config.endpoints:
            raise AlreadyExists(
                f"container {record.name!r} is attached to network {network.name!r} already; disconnect it first to "
                "change how",
                resource_type="network",
                resource_name=network.name,
                owner=record.id,
                reason="ALREADY_CONNECTED",
            )
        node = engine.nodes.get(record.node)
        spec = endpoint_spec(record, settings)
        await spread_to(engine, [network.id], node, deadline)
        try:
            entry = await node.executor.containers.connect_network(record.id, spec, deadline=deadline)
        except AlreadyExists as error:
            raise await holder_named(engine, error) from error
        if entry is not None:
            await node.settle(entry)


async def _disconnect(engine: Engine, container_id: str, network: NetworkRecord, deadline: Deadline) -> None:
    async with engine.locks.hold(container_id, "disconnect", deadline), deadline.enforced("disconnect the container"):
        record = await current(engine, container_id)
        _require_connectable(record, network)
        if network.name not in record.networking_config.endpoints:
            raise FailedPrecondition(
                f"container {record.name!r} is not attached to network {network.name!r}; InspectContainer shows "
                "what it is attached to",
                resource_type="network",
                resource_name=network.name,
                reason="NOT_CONNECTED",
            )
        node = engine.nodes.get(record.node)
        entry = await node.executor.containers.disconnect_network(record.id, network.id, deadline=deadline)
        if entry is not None:
            await node.settle(entry)


def _require_connectable(record: ContainerRecord, network: NetworkRecord) -> None:
    refuse_when_going(record, "connect")
    mode = record.host_config.network_mode
    if not has_networks(mode):
        why = f"has network mode '{mode}', which has no networks of its own; create it with another mode"
        raise wrong_state(record, why, reason="NETWORK_MODE_CONFLICT")
    if network.id in PREDEFINED and network.id != DEFAULT_NETWORK:
        why = f"cannot be connected to '{network.id}', which is a network mode; create it with that"
        raise wrong_state(record, why, reason="NETWORK_MODE_CONFLICT")
