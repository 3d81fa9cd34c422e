"""An etcd for the whole run, with a prefix for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from api_service.etcd.target import EtcdTarget
from tests.fixtures.etcd import EtcdCluster, etcd_cluster

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def etcd_target(etcd: EtcdCluster) -> EtcdTarget:
    """Nobody else's keys."""
    return EtcdTarget(endpoints=etcd.endpoints, prefix=f"/test-{next(_NUMBERS)}/")
