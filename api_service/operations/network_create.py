"""Make a network.

The record comes first, with the name, and is shown to nobody until the node has made the network: whatever ends the
create before that leaves nothing behind, now or when the node answers again.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.networks import StoredNetwork
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.jobs import whole
from api_service.operations.network_spread import add_overlay
from api_service.operations.node_choice import named_node
from api_service.records.event_shapes import network_life_event
from api_service.records.network import BRIDGE_DRIVER, OVERLAY_DRIVER, NetworkPhase, NetworkRecord, Subnet
from api_service.records.node_repository import NodeGoing
from api_service.validation.networks import NetworkRequest, network_warnings, subnets, validate_network
from common.errors import Aborted, AlreadyExists, InvalidArgument, SlipwayError

_log = structlog.get_logger(__name__)

_UNDO_TIME = 60.0  # seconds
_PLACEMENTS = 8  # each failure means that the node is being removed


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedNetwork:
    """`warnings`: a sentence each."""

    id: str
    warnings: Sequence[str] = ()


async def create_network(engine: Engine, request: NetworkRequest, *, deadline: Deadline) -> CreatedNetwork:
    """Raises InvalidArgument with every violation, AlreadyExists for the name, FailedPrecondition for a subnet or a
    bridge that is somebody else's and when no node can take it, ResourceExhausted when no subnet is free,
    Unavailable."""
    if broken := validate_network(request):
        raise InvalidArgument(violations=broken)
    if request.driver == OVERLAY_DRIVER:
        return await _create_overlay(engine, request, deadline)
    for _ in range(_PLACEMENTS):
        node = await named_node(engine, request.node, subject=f"network {request.name!r}")
        try:
            return await _create_on(engine, request, node, deadline)
        except NodeGoing:
            if request.node:
                raise
    raise Aborted(f"network {request.name!r}: every node it is placed on is being removed; repeat the request")


async def _create_on(engine: Engine, request: NetworkRequest, node: Node, deadline: Deadline) -> CreatedNetwork:
    """Raises NodeGoing."""
    draft = _draft(engine, request, node.name)
    async with deadline.enforced(f"create network {draft.name!r}"), AsyncExitStack() as undo:
        engine.creating.add(draft.id)
        undo.callback(engine.creating.discard, draft.id)
        undo.push_async_callback(
            lambda: engine.jobs.finish(undo_network(engine, draft), name=f"undo network {draft.name}")
        )
        if (holder := await whole(engine.networks.add(draft))) is not None:
            raise _name_taken(draft.name, holder)
        stored = await node.executor.networks.create(stored_network(draft), deadline=deadline)
        await whole(_make_ready(engine, with_chosen(draft, stored), undo))
    engine.creating.discard(draft.id)
    return CreatedNetwork(id=draft.id, warnings=network_warnings(request))


async def _create_overlay(engine: Engine, request: NetworkRequest, deadline: Deadline) -> CreatedNetwork:
    """It is there at once: a node is asked with the first container that it gets there."""
    draft = _draft(engine, request, node="")
    async with deadline.enforced(f"create network {draft.name!r}"):
        if (holder := await add_overlay(engine, draft, request)) is not None:
            raise _name_taken(draft.name, holder)
    return CreatedNetwork(id=draft.id, warnings=network_warnings(request))


async def undo_network(engine: Engine, network: NetworkRecord) -> None:
    """Take back what was made of a network, here and on its node. One that is ready stays. What the node cannot be told
    now is removed there when it answers again, because no record tells of it."""
    stored = await engine.networks.get(network.id)
    if stored is None or stored.record.phase is not NetworkPhase.CREATING:
        return
    await engine.networks.delete(network.id)
    executor = engine.nodes.get(network.node).executor
    try:
        await executor.networks.remove(network.id, deadline=Deadline.after(_UNDO_TIME))
    except SlipwayError as error:
        _log.warning("network of an unfinished create is left on its node", network=network.name, error=error.message)


def stored_network(network: NetworkRecord) -> StoredNetwork:
    """What the node is asked for."""
    return StoredNetwork(
        id=network.id,
        name=network.name,
        ipv4=network.ipv4,
        ipv6=network.ipv6,
        bridge=network.bridge,
        mtu=network.mtu,
        internal=network.internal,
        icc=network.icc,
        macvlan=network.macvlan,
    )


def with_chosen(network: NetworkRecord, stored: StoredNetwork) -> NetworkRecord:
    """The record with what the node has chosen."""
    return dataclasses.replace(
        network,
        ipv4=_chosen(network.ipv4, stored.ipv4),
        ipv6=_chosen(network.ipv6, stored.ipv6),
        bridge=stored.bridge,
        mtu=stored.mtu,
    )


def _chosen(asked: Subnet | None, stored: Subnet | None) -> Subnet | None:
    if asked is None or stored is None:
        return asked
    return dataclasses.replace(asked, subnet=stored.subnet, gateway=stored.gateway, ip_range=stored.ip_range)


def _draft(engine: Engine, request: NetworkRequest, node: str) -> NetworkRecord:
    ipv4, ipv6 = subnets(request)
    return NetworkRecord(
        id=secrets.token_hex(32),
        name=request.name,
        driver=request.driver or BRIDGE_DRIVER,
        created_at=engine.clock(),
        node=node,
        ipv4=ipv4,
        ipv6=ipv6,
        bridge=request.bridge_name,
        mtu=request.mtu,
        internal=request.internal,
        icc=request.icc,
        host_binding_ipv4=request.host_binding_ipv4,
        macvlan=request.macvlan,
        labels=dict(request.labels),
        phase=NetworkPhase.CREATING,
        creator=engine.claims.replica,
    )


async def _make_ready(engine: Engine, network: NetworkRecord, undo: AsyncExitStack) -> None:
    ready = dataclasses.replace(network, phase=NetworkPhase.READY)
    events = [network_life_event(ready, "create", engine.clock())]
    if await engine.networks.update(network.id, lambda _: ready, events) is None:
        raise Aborted(f"network {network.name!r}: removed while it was being created; create it again")
    undo.pop_all()


def _name_taken(name: str, holder: str) -> AlreadyExists:
    return AlreadyExists(
        f"network with name {name} already exists, its id is {holder[:12]}; remove it, or choose another name",
        resource_type="network",
        resource_name=name,
        owner=holder,
        reason="NETWORK_NAME_IN_USE",
    )
