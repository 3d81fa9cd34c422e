"""The whole service, put together: what is made of what, and in which order it begins and ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from api_service.background import background
from api_service.conversion.image import image_rules
from api_service.node_composition import dial, open_node, own_node
from api_service.nodes.contact import report_unserved
from api_service.nodes.directory import NodeDirectory
from api_service.nodes.journal_follower import Backoff
from api_service.nodes.lease import LeaseTerms
from api_service.nodes.misnamed import Misnamed
from api_service.nodes.reach import Scout, reach_terms
from api_service.nodes.registry import NodeRegistry
from api_service.operations.cluster_lock import ClusterLock
from api_service.operations.container_locks import ContainerLocks
from api_service.operations.engine import Engine
from api_service.operations.jobs import Jobs
from api_service.operations.node_sweep import sweep_after_departures
from api_service.overlays.slices import OverlayPools
from api_service.overlays.view import OverlayView
from api_service.records.container_repository import ContainerRepository
from api_service.records.event_log import EventLog
from api_service.records.exec_repository import ExecRepository
from api_service.records.image_repository import ImageRepository
from api_service.records.moves import MoveRepository
from api_service.records.network_repository import NetworkRepository
from api_service.records.node_cursors import NodeCursors
from api_service.records.node_repository import NodeRepository
from api_service.records.node_usage import NodeUsages
from api_service.records.volume_repository import VolumeRepository
from api_service.registries.endpoints import Registries
from api_service.store.claims import Claims, run_claimed
from api_service.store.store import Store
from common.request_rules import RequestRules
from common.tls import TlsSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`executor`: of the node `node`; empty: there are only the nodes that are added. `alone`: no other service has the
    store. `grace`: seconds that work under way gets to end at a stop. `tls`: for executors on other machines."""

    node: str
    executor: str
    alone: bool = True
    grace: float = 10.0
    max_events: int = 100_000
    registries: Registries = field(default_factory=Registries)
    overlay_pools: OverlayPools = field(default_factory=OverlayPools)
    tls: TlsSource | None = None
    backoff: Backoff = field(default_factory=Backoff)
    lease: LeaseTerms = field(default_factory=LeaseTerms)


@asynccontextmanager
async def open_engine(
    store: Store,
    claims: Claims,
    plan: Plan,
    rules: RequestRules,
    *,
    clock: Callable[[], int] = time.time_ns,
    on_misnamed: Callable[[Misnamed], None] = lambda error: None,
) -> AsyncIterator[Engine]:
    """The engine over a store that is open, following each node unless another replica does. It serves reads whether or
    not the nodes are there. Raises Misnamed when the executor of the plan is on record as another node's;
    `on_misnamed` is called when that is found out later."""
    async with AsyncExitStack() as stack:
        engine = _engine(store, claims, plan, rules, clock)
        own = None
        if plan.executor:
            own = await own_node(engine, name=plan.node, address=plan.executor, alone=plan.alone)
        if plan.alone:
            await report_unserved(engine.node_records, own=plan.node if own is not None else "", clock=clock)
        opening = partial(
            open_node,
            engine,
            claims=claims,
            cursors=NodeCursors(store),
            backoff=plan.backoff,
            terms=plan.lease,
            alone=plan.alone,
            on_misnamed=on_misnamed,
        )
        directory = NodeDirectory(engine.node_records, engine.nodes, opening, own=own)
        await stack.enter_async_context(directory)
        # Entered after the nodes: what is under way gets its time while they are still there.
        await stack.enter_async_context(engine.jobs)
        scout = Scout(engine.nodes, claims, reach_terms(plan.lease))
        for name, work in {
            "trim events": run_claimed(claims, "trim/events", engine.events.trim_forever),
            "forget execs": run_claimed(claims, "trim/execs", engine.execs.forget_old_forever),
            "look after replicas": sweep_after_departures(engine),
            "follow overlay networks": engine.overlays.follow_forever(),
            "follow nodes": directory.follow_forever(),
            "say which nodes are reached": scout.scout_forever(),
            "leave nodes to who reaches them": scout.look_forever(),
            "keep the index of containers": engine.containers.index_forever(),
        }.items():
            await stack.enter_async_context(background(work, name=name))
        yield engine


def _engine(store: Store, claims: Claims, plan: Plan, rules: RequestRules, clock: Callable[[], int]) -> Engine:
    events = EventLog(store, limit=plan.max_events)
    usages, registry = NodeUsages(store), NodeRegistry()
    containers, networks = ContainerRepository(store, events, usages), NetworkRepository(store, events)
    return Engine(
        containers=containers,
        images=ImageRepository(store, events),
        volumes=VolumeRepository(store, events),
        networks=networks,
        overlays=OverlayView(networks, containers),
        overlay_pools=plan.overlay_pools,
        execs=ExecRepository(store, events, clock=clock),
        events=events,
        node_records=NodeRepository(store, events),
        nodes=registry,
        usages=usages,
        moves=MoveRepository(store),
        dial=partial(dial, tls=plan.tls),
        claims=claims,
        catch_up=store.catch_up,
        locks=ContainerLocks(claims),
        departures=ContainerLocks(claims, "departed container"),
        network_locks=ContainerLocks(claims, "network"),
        volume_locks=ContainerLocks(claims, "volume"),
        image_changes=ClusterLock(claims, "images"),
        jobs=Jobs(grace=plan.grace),
        clock=clock,
        image_rules=image_rules(rules),
        registries=plan.registries,
    )
