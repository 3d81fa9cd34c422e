"""The store that the settings name, and the claims that belong to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from api_service.config import Settings
from api_service.etcd.cluster import open_cluster
from api_service.store.claims import Claims, LocalClaims
from api_service.store.migration import refuse_unfinished
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Store


@asynccontextmanager
async def open_store(settings: Settings, *, on_replaced: Callable[[str], None]) -> AsyncIterator[tuple[Store, Claims]]:
    """`on_replaced`: see `EtcdStore`. Raises Unavailable when it cannot be reached, FailedPrecondition when another
    process has it."""
    if (target := settings.etcd) is not None:
        async with open_cluster(target, on_replaced=on_replaced) as cluster:
            await refuse_unfinished(cluster.store)
            yield cluster.store, cluster.claims
    else:
        async with SqliteStore(embedded_file(settings)) as store:
            await refuse_unfinished(store)
            yield store, LocalClaims()


def embedded_file(settings: Settings) -> Path:
    return settings.state_dir / "api.db"
