"""What has to be put right of the networks when a node answers again."""

from __future__ import annotations

from collections.abc import Awaitable

import structlog

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.abandoned import alive, is_abandoned
from api_service.operations.engine import Engine
from api_service.operations.network_create import stored_network, undo_network
from api_service.operations.network_remove import remove_unused
from api_service.operations.network_spread import make_on_node
from api_service.records.network import DEFAULT_NETWORK, NetworkPhase, NetworkRecord
from common.errors import SlipwayError

_log = structlog.get_logger(__name__)

_CALL_TIME = 60.0  # seconds


async def sweep_networks(engine: Engine, node: Node) -> None:
    """Creates that nobody finishes are taken back, removals finished, networks that the node has lost made again. What
    the node has and no record tells of was undone: records are written before the node is asked."""
    stored = {one.id: one.name for one in await node.executor.networks.list(deadline=Deadline.after(_CALL_TIME))}
    fresh = await engine.catch_up()  # another replica may have recorded what the node has
    known, recorded = await engine.networks.every_phase(), await engine.networks.ids()
    replicas = await alive(engine)
    for network in known:
        if network.overlay is not None:
            await _sweep_overlay(engine, network, node, stored=network.id in stored, fresh=fresh)
        if network.node != node.name:
            continue
        if network.phase is NetworkPhase.CREATING:
            if is_abandoned(engine, network.creator, replicas, under_way=network.id in engine.creating):
                engine.jobs.background(undo_network(engine, network), name=f"undo network {network.name}")
        elif network.phase is NetworkPhase.REMOVING:
            removal = remove_unused(engine, network, Deadline.after(_CALL_TIME))
            engine.jobs.background(removal, name=f"finish removal of network {network.name}")
        elif network.phase is NetworkPhase.READY and network.id not in stored:
            creation = node.executor.networks.create(stored_network(network), deadline=Deadline.after(_CALL_TIME))
            await _made_again(network, creation)
    if not fresh:
        return
    for network_id in stored.keys() - recorded - {network.id for network in known} - {DEFAULT_NETWORK}:
        await _remove_stray(node, network_id, stored[network_id])


async def _sweep_overlay(engine: Engine, network: NetworkRecord, node: Node, *, stored: bool, fresh: bool) -> None:
    """The node may be reached by another address than before, may have lost the network, or have it still though its
    slice is another node's by now. `fresh`: what is on record was read as it is."""
    assert network.overlay is not None
    own = network.overlay.slices.get(node.name)
    if network.phase is NetworkPhase.REMOVING:
        removal = remove_unused(engine, network, Deadline.after(_CALL_TIME))
        engine.jobs.background(removal, name=f"finish removal of network {network.name}")
    elif own is None and stored and fresh:
        await _remove_stray(node, network.id, network.name)
    elif own is not None and own.made:
        facts = await node.facts(Deadline.after(_CALL_TIME))
        if not stored or own.address != facts.overlay_address:
            await _made_again(network, make_on_node(engine, network, node, Deadline.after(_CALL_TIME)))


async def _remove_stray(node: Node, network_id: str, name: str) -> None:
    """One that a container of the node names is refused: then this service's records may be lost, and it stays."""
    try:
        await node.executor.networks.remove(network_id, deadline=Deadline.after(_CALL_TIME))
    except SlipwayError as error:
        _log.warning("network without a record kept", network=name, node=node.name, error=error.message)


async def _made_again(network: NetworkRecord, creation: Awaitable[object]) -> None:
    try:
        await creation
    except SlipwayError as error:
        _log.error("network that the node lost not made again", network=network.name, error=error.message)
