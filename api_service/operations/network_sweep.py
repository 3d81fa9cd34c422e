"""What has to be put right of the networks when a node answers again."""

from __future__ import annotations

import dataclasses

import structlog

from api_service.nodes.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.network_create import stored_network, undo_network
from api_service.operations.network_remove import remove_unused
from api_service.records.network import DEFAULT_NETWORK, NetworkPhase, NetworkRecord
from common.errors import SlipwayError

_log = structlog.get_logger(__name__)

_CALL_TIME = 60.0  # seconds


async def sweep_networks(engine: Engine, node: Node) -> None:
    """Creates that nobody finishes are taken back, removals finished, networks that the node has lost made again. What
    the node has and no record tells of is somebody's, whose records were lost: it is shown, and never deleted."""
    stored = {one.id: one for one in await node.executor.list_networks(deadline=Deadline.after(_CALL_TIME))}
    known = await engine.networks.every_phase()
    for network in known:
        if network.node != node.name:
            continue
        if network.phase is NetworkPhase.CREATING and network.id not in engine.creating:
            engine.jobs.background(undo_network(engine, network), name=f"undo network {network.name}")
        elif network.phase is NetworkPhase.REMOVING:
            removal = remove_unused(engine, network, Deadline.after(_CALL_TIME))
            engine.jobs.background(removal, name=f"finish removal of network {network.name}")
        elif network.phase is NetworkPhase.READY and network.id not in stored:
            await _make_again(network, node)
    recorded = {network.id for network in await engine.networks.every_phase()}
    for found in stored.values():
        if found.id not in recorded and found.id != DEFAULT_NETWORK:
            adopted = NetworkRecord(
                id=found.id,
                name=found.name,
                created_at=engine.clock(),
                node=node.name,
                ipv4=found.ipv4,
                ipv6=found.ipv6,
                bridge=found.bridge,
                mtu=found.mtu,
                internal=found.internal,
                icc=found.icc,
            )
            if await engine.networks.add(adopted) is not None:
                renamed = dataclasses.replace(adopted, name=f"{found.name}-{found.id[:12]}")
                await engine.networks.add(renamed)


async def _make_again(network: NetworkRecord, node: Node) -> None:
    try:
        await node.executor.create_network(stored_network(network), deadline=Deadline.after(_CALL_TIME))
    except SlipwayError as error:
        _log.error("network that the node lost not made again", network=network.name, error=error.message)
