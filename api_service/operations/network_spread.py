"""Overlay networks on nodes: made there with the first container, taken away when the network is removed.

A node's slice is on record before the node is asked for anything, so no two nodes ever have one slice; the other nodes
are told of it by who attends to them (see `overlays`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Iterable
from functools import partial
from ipaddress import ip_network

import structlog

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.jobs import whole
from api_service.operations.network_attach import require_usable
from api_service.overlays.slices import (
    DEFAULT_PORT,
    IpNetwork,
    free_part,
    on_node,
    slice_prefix,
    unmade,
    with_made,
    with_slice,
    without_slice,
)
from api_service.records.event_shapes import network_life_event
from api_service.records.network import NetworkPhase, NetworkRecord, Overlay, Subnet
from api_service.records.network_repository import no_such_network
from api_service.store.store import RevisionConflict
from api_service.validation.networks import NetworkRequest
from common.errors import Aborted, DeadlineExceeded, FailedPrecondition, SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

_MAX_ATTEMPTS = 16
_LOWEST_VNI, _VNIS = 4096, (1 << 24) - 4096  # low ones are what people choose by hand
_REMOVE_TIME = 5.0  # seconds; a node that does not answer is told by the sweep that it has a network too many


async def add_overlay(engine: Engine, draft: NetworkRecord, request: NetworkRequest) -> str | None:
    """Put the network on record, with a VNI and with subnets where it has none. No node is asked yet. Returns the id of
    the network that holds its name, None: it was written. Raises FailedPrecondition, ResourceExhausted."""
    for _ in range(_MAX_ATTEMPTS):
        known = await engine.networks.every_phase()
        if holder := next((one.id for one in known if one.name == draft.name), None):
            return holder
        network = _with_choices(engine, draft, request, [one for one in known if one.overlay is not None])
        event = network_life_event(network, "create", engine.clock())
        try:
            return await whole(engine.networks.add(network, [event]))
        except RevisionConflict:
            continue  # another create took the VNI or the subnet just now
    raise Aborted(f"network {draft.name!r}: others take its subnet or VNI all the time; repeat the request")


async def spread_to(engine: Engine, network_ids: Iterable[str], node: Node, deadline: Deadline) -> None:
    """Have those of the networks that are overlays on the node: before a container there is attached to them. Costs
    nothing where that has been done. Raises NotFound, FailedPrecondition, ResourceExhausted, Unavailable."""
    for network_id in network_ids:
        stored = await engine.networks.get(network_id)
        if stored is None or stored.record.overlay is None:
            continue
        own = stored.record.overlay.slices.get(node.name)
        if own is None or not own.made:
            await _spread(engine, stored.record, node, deadline)


async def make_on_node(engine: Engine, network: NetworkRecord, node: Node, deadline: Deadline) -> None:
    """With the slice that it has there, or a new one. Idempotent."""
    address = (await node.facts(deadline)).overlay_address
    if not address:
        raise FailedPrecondition(
            f"network {network.name!r} cannot be had on node {node.name!r}: no other node would reach it there; give "
            "its executor an overlay_address, or its host a default route",
            resource_type="network",
            resource_name=network.name,
            reason="UNDERLAY_UNAVAILABLE",
        )
    cut = await engine.networks.update(network.id, partial(with_slice, node=node.name, address=address))
    if cut is None:
        raise no_such_network(network.name)
    require_usable(cut)
    await node.executor.networks.create(on_node(cut, node.name), deadline=deadline)
    await engine.networks.update(network.id, partial(with_made, node=node.name))


async def release_slices(engine: Engine, node: str) -> None:
    """The node is none of the cluster's any more: nobody hears it, and its slices are given to others."""
    for network in await engine.networks.every_phase():
        if network.overlay is not None and node in network.overlay.slices:
            await engine.networks.update(network.id, partial(without_slice, node=node))


async def withdraw_everywhere(engine: Engine, network: NetworkRecord, deadline: Deadline) -> None:
    """Take the network from its nodes. Those that do not answer are left: when they do, they have a network that no
    record tells of. When one refuses, the network is ready again, and the refusal is raised."""
    overlay = network.overlay
    assert overlay is not None
    nodes = [node for name in overlay.slices if (node := engine.nodes.find(name)) is not None]
    removals = (_withdraw(node, network, deadline.at_most(_REMOVE_TIME)) for node in nodes)
    refusals = [error for error in await asyncio.gather(*removals) if error is not None]
    if refusals:
        await engine.networks.update(
            network.id, lambda found: dataclasses.replace(unmade(found), phase=NetworkPhase.READY)
        )
        raise refusals[0]


async def _withdraw(node: Node, network: NetworkRecord, deadline: Deadline) -> SlipwayError | None:
    try:
        await node.executor.networks.remove(network.id, deadline=deadline)
    except (Unavailable, DeadlineExceeded):
        _log.warning("network left on a node that does not answer", network=network.name, node=node.name)
    except SlipwayError as error:
        return error
    return None


async def _spread(engine: Engine, network: NetworkRecord, node: Node, deadline: Deadline) -> None:
    async with engine.network_locks.hold(network.id, "spread", deadline):
        await make_on_node(engine, network, node, deadline)


def _with_choices(
    engine: Engine, draft: NetworkRecord, request: NetworkRequest, others: list[NetworkRecord]
) -> NetworkRecord:
    taken = {
        ip_network(subnet.subnet): one.name for one in others for subnet in (one.ipv4, one.ipv6) if subnet is not None
    }
    ipv4 = _chosen(draft, draft.ipv4, engine.overlay_pools.ipv4, taken)
    ipv6 = _chosen(draft, draft.ipv6, engine.overlay_pools.ipv6, taken)
    options = request.overlay
    return dataclasses.replace(
        draft,
        node="",
        ipv4=ipv4,
        ipv6=ipv6,
        phase=NetworkPhase.READY,
        overlay=Overlay(
            vni=_LOWEST_VNI + secrets.randbelow(_VNIS),
            port=options.port or DEFAULT_PORT,
            slice_prefix_ipv4=options.slice_prefix_ipv4 or _prefix(ipv4),
            slice_prefix_ipv6=options.slice_prefix_ipv6 or _prefix(ipv6),
        ),
    )


def _prefix(subnet: Subnet | None) -> int:
    return slice_prefix(ip_network(subnet.subnet)) if subnet is not None else 0


def _chosen(draft: NetworkRecord, subnet: Subnet | None, pool: IpNetwork, taken: dict[IpNetwork, str]) -> Subnet | None:
    if subnet is None:
        return None
    if not subnet.subnet:
        return dataclasses.replace(subnet, subnet=str(free_part(pool, taken)))
    asked = ip_network(subnet.subnet)
    for other, name in taken.items():
        if other.version == asked.version and other.overlaps(asked):
            raise FailedPrecondition(
                f"network {draft.name!r}: subnet {asked} overlaps {other} of network {name!r}; choose another subnet",
                resource_type="network",
                resource_name=draft.name,
                reason="SUBNET_OVERLAPS",
            )
    return subnet
