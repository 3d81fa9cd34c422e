"""Whether etcd is the one that it was, asked while this process commits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from api_service.etcd.client import EtcdClient
from api_service.etcd.mirror import Mirror
from api_service.etcd.target import Layout
from api_service.store.store import Change


async def test_a_commit_that_overtakes_the_answer_is_no_older_history() -> None:
    class Client:
        async def call(self, call: object) -> Any:
            assert mirror.anticipate(10, 11, [Change(key="a", value=b"", revision=11)])
            return SimpleNamespace(header=SimpleNamespace(revision=10, cluster_id=7))

    mirror = Mirror(cast("EtcdClient", Client()), Layout("/slipway/").records, history_limit=10)
    mirror._cluster, mirror._seen, mirror._feed = 7, 10, mirror._make_feed(10)
    await mirror._check_history()
