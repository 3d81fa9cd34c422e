"""The store and the claims of a process in a cluster, opened and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from etcdserverpb import etcd_service_pb2 as pb2

from api_service.etcd.claims import EtcdClaims
from api_service.etcd.client import Call, EtcdClient, Member, Metadata
from api_service.etcd.session import Session
from api_service.etcd.store import EtcdStore
from api_service.etcd.target import EtcdTarget
from api_service.store.claims import run_claimed
from common.errors import OutOfRange, SlipwayError

_log = structlog.get_logger(__name__)

HISTORY = 100_000
"""Revisions that etcd keeps of what was overwritten and removed."""

_COMPACT_EVERY = 60.0  # seconds
_SLACK = 1000  # revisions; what is promised to watchers is never what etcd has just forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    store: EtcdStore
    claims: EtcdClaims


@asynccontextmanager
async def open_cluster(
    target: EtcdTarget, *, history_limit: int = HISTORY, on_replaced: Callable[[str], None] = lambda why: None
) -> AsyncIterator[Cluster]:
    """`on_replaced`: see `EtcdStore`. Raises Unavailable when etcd does not answer."""
    async with (
        EtcdClient(target) as client,
        Session(client) as session,
        EtcdStore(client, session, history_limit=history_limit, on_replaced=on_replaced) as store,
        EtcdClaims(client, session, included=store.included) as claims,
    ):
        compacting = asyncio.create_task(
            run_claimed(claims, "history", lambda: _compact_forever(client, store, history_limit)),
            name="compact etcd",
        )
        try:
            yield Cluster(store=store, claims=claims)
        finally:
            compacting.cancel()
            await asyncio.wait([compacting])


async def _compact_forever(client: EtcdClient, store: EtcdStore, history_limit: int) -> None:
    """One replica does it for all: they all promise the same history."""
    while True:
        await asyncio.sleep(_COMPACT_EVERY)
        if (revision := await store.revision() - history_limit - _SLACK) > 0:
            try:
                await client.call(_compaction(revision))
            except OutOfRange:
                continue  # somebody has had it forget more
            except SlipwayError as error:
                _log.warning("history of etcd not shortened", revision=revision, error=error.message)


def _compaction(revision: int) -> Call[pb2.CompactionResponse]:
    async def call(member: Member, metadata: Metadata, seconds: float) -> pb2.CompactionResponse:
        request = pb2.CompactionRequest(revision=revision)
        return await member.kv.Compact(request, timeout=seconds, metadata=metadata)

    return call
