"""The whole service, put together: what is made of what, and in which order it begins and ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import structlog

from api_service.conversion.image import image_rules
from api_service.nodes.grpc_executor import GrpcExecutor
from api_service.nodes.journal_follower import Backoff, JournalFollower
from api_service.nodes.observer import Observer
from api_service.nodes.registry import Node, NodeRegistry
from api_service.operations.container_locks import ContainerLocks
from api_service.operations.engine import Engine
from api_service.operations.jobs import Jobs
from api_service.operations.node_sweep import auto_remove, sweep_node
from api_service.records.container_repository import ContainerRepository
from api_service.records.event_log import EventLog
from api_service.records.exec_repository import ExecRepository
from api_service.records.image_repository import ImageRepository
from api_service.records.network_repository import NetworkRepository
from api_service.records.node_cursors import NodeCursors
from api_service.records.volume_repository import VolumeRepository
from api_service.registries.endpoints import Registries
from api_service.store.claims import Claims, run_claimed
from api_service.store.store import Store
from common.request_rules import RequestRules
from common.tls import TlsSource

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`grace`: seconds that work under way gets to end at a stop. `tls`: for executors on other machines."""

    node: str
    executor: str
    grace: float = 10.0
    max_events: int = 100_000
    registries: Registries = field(default_factory=Registries)
    tls: TlsSource | None = None
    backoff: Backoff = field(default_factory=Backoff)


@asynccontextmanager
async def open_engine(
    store: Store, claims: Claims, plan: Plan, rules: RequestRules, *, clock: Callable[[], int] = time.time_ns
) -> AsyncIterator[Engine]:
    """The engine over a store that is open, following its node unless another replica does. It serves reads whether or
    not the node is there."""
    async with AsyncExitStack() as stack:
        events = EventLog(store, limit=plan.max_events)
        containers = ContainerRepository(store, events)
        execs = ExecRepository(store, events, clock=clock)
        observer = Observer(containers, events, execs, clock=clock)
        executor = await stack.enter_async_context(GrpcExecutor(node=plan.node, address=plan.executor, tls=plan.tls))
        jobs = await stack.enter_async_context(Jobs(grace=plan.grace))

        def connected() -> None:
            node.forget_facts()
            jobs.background(sweep_node(engine, node), name=f"sweep {plan.node}")

        follower = JournalFollower(
            node=plan.node,
            executor=executor,
            observer=observer,
            cursors=NodeCursors(store),
            on_connected=connected,
            backoff=plan.backoff,
        )
        node = Node(name=plan.node, executor=executor, follower=follower, observer=observer)
        engine = Engine(
            containers=containers,
            images=ImageRepository(store, events),
            volumes=VolumeRepository(store, events),
            networks=NetworkRepository(store, events),
            execs=execs,
            events=events,
            nodes=NodeRegistry([node]),
            locks=ContainerLocks(),
            jobs=jobs,
            clock=clock,
            image_rules=image_rules(rules),
            registries=plan.registries,
        )
        observer.on_ended = lambda record: auto_remove(engine, record)
        stack.push_async_callback(_end, asyncio.create_task(events.trim_forever(), name="trim events"))
        stack.push_async_callback(_end, asyncio.create_task(execs.forget_old_forever(), name="forget execs"))
        following = run_claimed(claims, f"journal/{plan.node}", follower.follow_forever)
        stack.push_async_callback(_end, asyncio.create_task(following, name=f"follow {plan.node}"))
        yield engine


async def _end(task: asyncio.Task[None]) -> None:
    """A task that failed has failed, and does not keep the rest from ending."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("background task failed", task=task.get_name(), exc_info=error)
