"""Attach a container to a network and detach it: in its sandbox when it runs, and on record for the starts to come."""

from __future__ import annotations

from dataclasses import replace

import structlog

from common.errors import FailedPrecondition, InvalidArgument, SlipwayError
from executor_service.container import ContainerSpec, EndpointSpec, NetworkMode
from executor_service.container_record import ContainerRecord
from executor_service.host_errors import host_errors
from executor_service.journal_entries import JournalEntry, NetworkConnected, NetworkDisconnected
from executor_service.network.publication import Publication
from executor_service.network.refusals import no_such_network
from executor_service.network.sandbox import Sandbox
from executor_service.node import Node
from executor_service.operations.container_rules import endpoint_violations, id_violations
from executor_service.operations.port_targets import lead_ports, sandbox_of
from executor_service.tasks import bounded
from executor_service.threads import to_the_end

_log = structlog.get_logger(__name__)


async def network_connect(node: Node, *, container_id: str, endpoint: EndpointSpec) -> JournalEntry | None:
    """The `network_connected` entry; None when it was attached so already. Raises NotFound, InvalidArgument,
    FailedPrecondition when its mode has no networks or there is none such, AlreadyExists for an address in use or a
    published port that is somebody else's by now, ResourceExhausted; everything is as it was then."""
    broken = [*id_violations(container_id), *endpoint_violations(endpoint, field="endpoint")]
    if broken:
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        record = node.records.get(container_id)
        spec = _connectable(record)
        if endpoint in spec.endpoints:
            return None
        with node.network_use.wanted([endpoint.network_id]), host_errors(f"container {container_id!r}"):
            return await to_the_end(_connect(node, record, spec, endpoint))


async def network_disconnect(node: Node, *, container_id: str, network_id: str) -> JournalEntry | None:
    """The `network_disconnected` entry; None when it was not attached. Raises NotFound, FailedPrecondition."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        record = node.records.get(container_id)
        spec = _connectable(record)
        left = tuple(one for one in spec.endpoints if one.network_id != network_id)
        if left == spec.endpoints:
            return None
        with host_errors(f"container {container_id!r}"):
            return await to_the_end(_disconnect(node, record, replace(spec, endpoints=left), network_id))


async def _connect(node: Node, record: ContainerRecord, old: ContainerSpec, endpoint: EndpointSpec) -> JournalEntry:
    """The sandbox first: what it refuses must not be on record. What a crash leaves there is detached by the next
    executor, since no record names it."""
    network, known = node.seams.network, [one for one in old.endpoints if one.network_id == endpoint.network_id]
    joined = node.seams.networks.find(endpoint.network_id)
    if joined is None:
        raise no_such_network(endpoint.network_id)
    others = tuple(one for one in old.endpoints if one not in known)
    new = replace(old, endpoints=(*others, endpoint))
    before = await sandbox_of(node, record)
    sandbox = await network.connect(old.id, endpoint) if record.phase.has_process else None
    endpoints = sandbox.endpoints if sandbox is not None else ()
    try:
        ports = await lead_ports(node, new, sandbox) if sandbox is not None else Publication()
        event = NetworkConnected(spec=endpoint, network_name=joined.name, endpoints=endpoints, ports=ports.bound)
        entry = await node.records.transition(new.id, event, spec=new, ports=ports)
    except Exception:
        await bounded("ports", lambda: node.seams.ports.revert(old.id), timeout=10, container=old.id)
        if before is not None and not known:
            await bounded(
                "network", lambda: network.disconnect(old.id, endpoint.network_id), timeout=10, container=old.id
            )
        raise
    if sandbox is not None:
        await _follow(node, new, before or sandbox, sandbox)
    return entry


async def _follow(node: Node, spec: ContainerSpec, before: Sandbox, after: Sandbox) -> None:
    """What is done is done: names that cannot be answered are the log's business, not a reason to go back."""
    names, bundles = node.seams.names, node.seams.bundles
    await bounded("names", lambda: names.follow(spec, after), timeout=10, container=spec.id)
    await bounded(
        "name files", lambda: bundles.update_names(spec, before=before, after=after), timeout=10, container=spec.id
    )


async def _lead_on(node: Node, spec: ContainerSpec, sandbox: Sandbox) -> Publication:
    """It is detached already: what cannot be led to where it still is (an address of a family that it has no more) is
    published no more, and so are its other ports."""
    try:
        return await lead_ports(node, spec, sandbox)
    except SlipwayError as error:
        _log.warning("ports are withdrawn", container=spec.id, error=error.message)
        return await node.seams.ports.suspend(spec.id)


async def _disconnect(node: Node, record: ContainerRecord, new: ContainerSpec, network_id: str) -> JournalEntry:
    before = await sandbox_of(node, record)
    sandbox = await node.seams.network.disconnect(new.id, network_id) if record.phase.has_process else None
    endpoints = sandbox.endpoints if sandbox is not None else ()
    known = node.seams.networks.find(network_id)
    name = known.name if known is not None else ""
    ports = await _lead_on(node, new, sandbox) if sandbox is not None else Publication()
    event = NetworkDisconnected(network_id=network_id, network_name=name, endpoints=endpoints, ports=ports.bound)
    entry = await node.records.transition(new.id, event, spec=new, ports=ports)
    if sandbox is not None:
        await _follow(node, new, before or sandbox, sandbox)
    return entry


def _connectable(record: ContainerRecord) -> ContainerSpec:
    spec = record.spec
    if spec is not None and not record.removing and spec.network_mode is NetworkMode.BRIDGE:
        return spec
    if spec is None or record.removing:
        why = "it is being removed" if record.removing else record.error
    else:
        why = f"its network mode is {spec.network_mode.value}, which has no networks of its own"
    raise FailedPrecondition(
        f"container {record.id!r}: {why}", resource_type="container", resource_name=record.id, reason="CANNOT_CONNECT"
    )
