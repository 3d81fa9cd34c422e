"""A node, put together: its executor, the way of its journal into the records, and who follows it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

import structlog

from api_service.background import background
from api_service.executor_client.client import ExecutorClient
from api_service.executor_grpc.executor import GrpcExecutor
from api_service.nodes.contact import NOT_YET, NodeContact
from api_service.nodes.handover import NodeTurns
from api_service.nodes.journal_follower import Backoff, JournalFollower
from api_service.nodes.lease import LeaseTerms, NodeLease
from api_service.nodes.lease_promise import LeasePromise
from api_service.nodes.misnamed import Misnamed, refuse_misnamed
from api_service.nodes.observer import Observer
from api_service.nodes.reach import reach_terms
from api_service.nodes.registry import Node
from api_service.operations.container_departure import remove_departed, remove_strays
from api_service.operations.container_halt import call_off
from api_service.operations.engine import Engine
from api_service.operations.node_leftovers import Leftovers
from api_service.operations.node_sweep import auto_remove, sweep_node
from api_service.operations.node_tending import leave_lost_node, revive, tend_forever
from api_service.overlays.teller import OverlayTeller
from api_service.records.container import ContainerRecord
from api_service.records.node import NodeRecord, NodeState, NodeStatus
from api_service.records.node_cursors import NodeCursors
from api_service.store.claims import Claims
from common.errors import DeadlineExceeded, SlipwayError, Unavailable
from common.tls import TlsSource

_log = structlog.get_logger(__name__)


def dial(record: NodeRecord, *, tls: TlsSource | None) -> AbstractAsyncContextManager[ExecutorClient]:
    return GrpcExecutor(node=record.name, address=record.address, tls=tls)


@asynccontextmanager
async def open_node(
    engine: Engine,
    record: NodeRecord,
    *,
    claims: Claims,
    cursors: NodeCursors,
    backoff: Backoff,
    terms: LeaseTerms,
    alone: bool,
    on_misnamed: Callable[[Misnamed], None],
) -> AsyncIterator[Node]:
    """Dealt with while the block runs. Its journal is followed, and its state recorded, by one replica. `alone`: there
    is no other, so what the settings say of their node is so. `on_misnamed`: called when they turn out not to be."""
    async with AsyncExitStack() as stack:
        executor = await stack.enter_async_context(engine.dial(record))
        observer = Observer(engine.containers, engine.events, engine.execs, node=record.name, clock=engine.clock)

        def ended(record: ContainerRecord) -> None:
            auto_remove(engine, record)
            revive(engine, node, record)

        observer.on_ended = ended

        def connected() -> None:
            node.forget_facts()
            teller.repeat()
            engine.jobs.background(sweep_node(engine, node), name=f"sweep {node.name}")

        follower = JournalFollower(
            node=record.name,
            executor=executor,
            observer=observer,
            cursors=cursors,
            on_connected=connected,
            backoff=backoff,
        )
        node = Node(
            record=record,
            executor=executor,
            follower=follower,
            observer=observer,
            exchangeable=alone and record.configured,
        )
        teller = OverlayTeller(node, engine.overlays)
        contact = NodeContact(node, engine.node_records, clock=engine.clock)

        async def lost(after: float) -> None:
            await contact.report_lost(after=after, withheld=lease.withheld)
            await leave_lost_node(engine, node)

        promise = LeasePromise(node.name, engine.node_records)
        lease = NodeLease(node, terms, promise, on_lost=lost)

        follower.introduce = partial(_introduce, engine, node, contact, lease, on_misnamed)
        attend = partial(_attend, engine, node, contact, lease, teller, terms)
        turns = NodeTurns(node, lease, claims=claims, terms=reach_terms(terms), attend=attend)
        await stack.enter_async_context(background(turns.take_forever(), name=f"take turns at {record.name}"))
        yield node


async def _introduce(
    engine: Engine, node: Node, contact: NodeContact, lease: NodeLease, on_misnamed: Callable[[Misnamed], None]
) -> None:
    """Before anything else is heard of the node, and before anything may be started there by itself."""
    try:
        await contact.introduce()
    except Misnamed as error:
        on_misnamed(error)
        raise
    async with lease.introduction():
        # Another replica may have moved what was there.
        if not await engine.catch_up():
            raise Unavailable("the store does not tell what has become of the node's containers")
        left = Leftovers(node)
        await remove_departed(engine, node, left)
        await remove_strays(engine, node, left)
        await call_off(engine, node, left)
        # From here on nothing is halted for the node's loss, but by then something more may have been.
        await contact.report_back()
        await call_off(engine, node, left)
        if danger := await left.danger():
            lease.withhold(danger)


async def _clear(engine: Engine, node: Node, lease: NodeLease) -> None:
    """What could not be removed is tried again while the journal is followed. When nothing is left that keeps the node
    from its lease it is introduced anew."""
    left = Leftovers(node)
    try:
        await remove_departed(engine, node, left)
        if lease.withheld:
            await remove_strays(engine, node, left)
            await call_off(engine, node, left)
            if not await left.danger():
                node.follower.interrupt(Unavailable("it gets its lease now, and is introduced for that"))
    except (Unavailable, DeadlineExceeded) as error:
        if lease.withheld:  # so no renewal fails, by which one that is frozen is noticed
            node.follower.interrupt(error)
        raise


async def _attend(
    engine: Engine, node: Node, contact: NodeContact, lease: NodeLease, teller: OverlayTeller, terms: LeaseTerms
) -> None:
    """All that one replica does for the node, as long as it has it."""
    async with asyncio.TaskGroup() as group:
        group.create_task(node.follower.follow_forever(), name=f"follow {node.name}")
        group.create_task(contact.report_forever(lambda: lease.withheld), name=f"report {node.name}")
        group.create_task(teller.tell_forever(), name=f"tell {node.name} of overlay networks")
        group.create_task(lease.hold_forever(), name=f"lease of {node.name}")
        clear = partial(_clear, engine, node, lease)
        group.create_task(tend_forever(engine, node, clear, every=terms.ttl / 10), name=f"tend {node.name}")


async def own_node(engine: Engine, *, name: str, address: str, alone: bool) -> NodeRecord:
    """The record of the node that the service is configured with. When the store cannot take it, a service that has the
    store alone deals with the node all the same. Where others have it too, as on etcd, nobody follows the node before
    it is on record, and only a start of one of them with these settings puts it there. One that was taken in under this
    name stays as it is, and is the answer. Raises Misnamed."""
    draft = NodeRecord(
        name=name,
        created_at=engine.clock(),
        address=address,
        status=NodeStatus(state=NodeState.UNREACHABLE, since=engine.clock(), reason=NOT_YET),
        configured=True,
        fresh=True,
    )

    if alone:
        await _refuse_misnamed(engine, draft)

    def move(found: NodeRecord) -> NodeRecord:
        return dataclasses.replace(found, address=address) if found.configured else found

    try:
        known = await engine.node_records.update(name, move)
        if known is None:
            await engine.node_records.add(draft)
        return known or draft
    except SlipwayError as error:
        _log.warning("the configured node is not on record", node=name, error=error.message)
        return draft


async def _refuse_misnamed(engine: Engine, own: NodeRecord) -> None:
    """Before anything is served, when the executor is there: else its first contact tells."""
    try:
        async with engine.dial(own) as executor:
            await refuse_misnamed(own, executor, engine.node_records)
    except Misnamed:
        raise
    except SlipwayError as error:
        _log.info("not known yet whether the configured node has another name", node=own.name, error=error.message)
