"""`python -m api_service migrate`: opens both stores, refuses those in use, copies, and compares what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from api_service.config import EMBEDDED, MigrateSettings, etcd_target
from api_service.etcd.cluster import open_cluster
from api_service.store.migration import check_copy, copy_records, finish
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Store
from api_service.store_choice import embedded_file
from common.errors import FailedPrecondition, InvalidArgument

_log = structlog.get_logger(__name__)


async def migrate(settings: MigrateSettings) -> None:
    """Raises FailedPrecondition when a service runs on either store, and for a target that is not empty; DataLoss."""
    if settings.source == settings.target:
        raise InvalidArgument("--source and --target are the same store")
    async with _opened(settings, settings.source) as source:
        async with _opened(settings, settings.target) as target:
            await copy_records(source, target)
        # Read again from where it lies.
        async with _opened(settings, settings.target) as target:
            await check_copy(source, target)
            await finish(target)
            _log.info("migrated", records=len(await target.list("")), source=settings.source, target=settings.target)


@asynccontextmanager
async def _opened(settings: MigrateSettings, store: str) -> AsyncIterator[Store]:
    if store == EMBEDDED:
        path = embedded_file(settings)
        if store == settings.source and not path.exists():
            raise FailedPrecondition(f"{path}: there is no embedded store; give its --state-dir or --instance")
        async with SqliteStore(path) as embedded:
            yield embedded
        return
    async with open_cluster(etcd_target(store, settings)) as cluster:
        if others := await cluster.claims.replicas() - {cluster.claims.replica}:
            raise FailedPrecondition(
                f"{len(others)} API services run on {store}, or ended without notice less than ten seconds ago; "
                "stop all of them",
                reason="STORE_IN_USE",
            )
        yield cluster.store
