"""An executor over a fake host, behind its real gRPC server on a unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.executor_client import Client, connected
from tests.fixtures.fake_host.host import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(directory=tmp_path)


@pytest.fixture
async def hurried(host: FakeHost) -> AsyncIterator[Client]:
    """It waits for no process to die, and for nobody else who deals with a container."""
    host.limits = replace(host.limits, kill=0.2, lock=2)
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        yield client


@pytest.fixture
async def client(host: FakeHost) -> AsyncIterator[Client]:
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        yield client
