"""Integration tests need root and never see the machine's network: the run moves into a namespace of its own first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from common.sqlite import Database
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import bridge_config, bridge_network, interfaces, node_state
from tests.fixtures.cluster import Cluster
from tests.fixtures.cluster_up import cluster
from tests.fixtures.executor import ExecutorProcess, executor_process
from tests.fixtures.netns import is_isolated, isolate_process
from tests.fixtures.overlay_nodes import OverlayNode, overlay_nodes
from tests.fixtures.port_world import World, port_world
from tests.fixtures.slipway import Slipway, installed
from tests.fixtures.store import ON_ETCD

_REASON = pytest.StashKey[str]()

# With the records on etcd everything is run that goes through the API. Left out is where they cannot matter:
_NO_API = [
    "test_dns_server.py",
    "test_exec_runtime.py",
    "test_executor_*.py",
    "test_logs_rotation.py",
    "test_mounts_attacks.py",
    "test_network_bridge.py",
    "test_network_faults.py",
    "test_network_isolation.py",
    "test_network_macvlan.py",
    "test_network_overlay*.py",
    "test_network_pool.py",
    "test_network_rules_memory.py",
    "test_network_sandboxes.py",
    "test_networks.py",
    "test_oci_*.py",
    "test_sealed_runtimes.py",
    "test_storage_*.py",
]
_BRING_ETCD = ["test_api_machines.py", "test_api_replicas.py", "test_cluster*.py", "test_etcd_failover.py"]
_EMBEDDED_STORE = ["test_api_process.py", "test_bench_cleanup.py", "test_store_disk_faults.py"]
collect_ignore_glob = [*_NO_API, *_BRING_ETCD, *_EMBEDDED_STORE] if ON_ETCD else []


def pytest_configure(config: pytest.Config) -> None:
    """Runs on the main thread before any test, hence before any thread or child of a test exists."""
    config.stash[_REASON] = isolate_process()


@pytest.fixture(scope="session", autouse=True)
def own_network_namespace(pytestconfig: pytest.Config) -> None:
    """No integration test runs in the machine's network namespace."""
    if reason := pytestconfig.stash[_REASON]:
        pytest.skip(reason)
    assert is_isolated(), "the integration tier must not run in the machine's network namespace"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    """Both services, for all tests of a module."""
    async with installed(tmp_path_factory.mktemp("services")) as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Both services, for all tests of a module, and those who use the ports that they publish."""
    async with port_world(tmp_path_factory.mktemp("services")) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three() -> AsyncIterator[Cluster]:
    """Three machines, for all tests of a module."""
    async with cluster() as three:
        yield three


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[ExecutorProcess]:
    async with executor_process() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def executor(running: ExecutorProcess) -> AsyncIterator[ExecutorProcess]:
    """One process for all tests of a module; each gets it as new, and restarted when the test before killed it."""
    yield running
    await running.clear()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A node's state."""
    async with node_state(tmp_path) as database:
        yield database


@pytest.fixture
async def network(tmp_path: Path, database: Database) -> AsyncIterator[Sandboxes]:
    """An executor's networks, in this process and in the namespace of the run."""
    before = interfaces()
    async with bridge_network(bridge_config(tmp_path), database) as network:
        yield network
    assert interfaces() == before


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[OverlayNode]]:
    """Two of them on one underlay."""
    async with overlay_nodes(tmp_path, 2) as nodes:
        yield nodes
