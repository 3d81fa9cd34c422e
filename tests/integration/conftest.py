"""Integration tests need root and never see the machine's network: the run moves into a namespace of its own first."""

from __future__ import annotations

import pytest

from tests.fixtures.netns import is_isolated, isolate_process
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
_BRING_ETCD = ["test_api_replicas.py", "test_cluster*.py", "test_etcd_failover.py"]
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
