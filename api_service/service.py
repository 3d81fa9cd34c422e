"""The running service: store, engine and server, from the first to the last, until it is told to stop."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - imported by getaddrinfo(3)'s wrapper, when it may be too late to read the file
import os
import signal
from contextlib import AsyncExitStack
from functools import partial

import structlog

from api_service.composition import Plan, open_engine
from api_service.config import NO_EXECUTOR, Settings
from api_service.nodes.lease import LeaseTerms
from api_service.nodes.misnamed import Misnamed
from api_service.overlays.slices import OverlayPools
from api_service.server import request_rules, serve
from api_service.store_choice import open_store
from common.tls import TlsSource

_log = structlog.get_logger(__name__)


_EXIT_REPLACED = 3


async def run_service(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises what keeps the service from starting, or turns out to later."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[Misnamed | None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stop)
    rules = request_rules()
    tls = TlsSource(settings.tls) if settings.tls is not None else None
    plan = Plan(
        node=settings.node,
        executor=settings.executor if settings.executor != NO_EXECUTOR else "",
        alone=settings.etcd is None,
        grace=settings.grace,
        max_events=settings.max_events,
        registries=settings.registries,
        overlay_pools=OverlayPools(ipv4=settings.overlay_ipv4, ipv6=settings.overlay_ipv6),
        lease=LeaseTerms(ttl=settings.node_lease, margin=5 + settings.node_lease / 3),
        tls=tls,
    )
    async with AsyncExitStack() as stack:
        store, claims = await stack.enter_async_context(open_store(settings, on_replaced=_begin_anew))
        engine = await stack.enter_async_context(
            open_engine(store, claims, plan, rules, on_misnamed=partial(_stop, stop))
        )
        await stack.enter_async_context(
            serve(engine, rules, settings.listen, grace=settings.grace, max_calls=settings.max_calls, tls=tls)
        )
        where = {"node": settings.node, "executor": settings.executor, "store": settings.store or "embedded"}
        _log.info("serving", addresses=settings.listen, replica=claims.replica, **where)
        wrong = await stop
        _log.info("stopping", grace=settings.grace)
    if wrong is not None:
        raise wrong


def _stop(stop: asyncio.Future[Misnamed | None], why: Misnamed | None = None) -> None:
    """The first reason is the one."""
    if not stop.done():
        stop.set_result(why)


def _begin_anew(why: str) -> None:
    """As after SIGKILL: nothing that this process knows may get into the store when it stops. Whoever runs it starts it
    again, and it goes on from what the store has."""
    _log.critical("the store is not the one that it was, this process ends to begin anew", why=why)
    os._exit(_EXIT_REPLACED)
