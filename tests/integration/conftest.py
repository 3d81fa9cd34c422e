"""Integration tests need root and never see the machine's network: the run moves into a namespace of its own first."""

from __future__ import annotations

import pytest

from tests.fixtures.netns import is_isolated, isolate_process

_REASON = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Runs on the main thread before any test, hence before any thread or child of a test exists."""
    config.stash[_REASON] = isolate_process()


@pytest.fixture(scope="session", autouse=True)
def own_network_namespace(pytestconfig: pytest.Config) -> None:
    """No integration test runs in the machine's network namespace."""
    if reason := pytestconfig.stash[_REASON]:
        pytest.skip(reason)
    assert is_isolated(), "the integration tier must not run in the machine's network namespace"
