"""A node that its API service does not reach any more, with the lease that nodes have by default: it is followed by one
that reaches it before the lease is over, so that nothing that runs there notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from api_service.nodes.lease import LeaseTerms
from tests.fixtures.beats import BEATING, Beats
from tests.fixtures.cluster import (
    EXECUTOR_PORT,
    READY,
    UNTIL_TOLD,
    Cluster,
    end_unseen,
    exited_with_7,
    live,
    run_on,
)
from tests.fixtures.cluster_crew import NETWORK, unharmed
from tests.fixtures.cluster_up import cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LEASE = int(LeaseTerms().ttl)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster(lease=LEASE) as made:
        yield made


async def test_what_may_run_elsewhere_runs_on(three: Cluster, tmp_path: Path) -> None:
    """The API service that follows it does not reach it, and later the one that follows it then."""
    beats = Beats(tmp_path / "beats")
    binds = [f"{beats.directory}:/beats"]
    async with unharmed(three):
        web = await three.run_movable("n3", "web", "sh", "-c", BEATING, network=NETWORK, binds=binds)
        for _ in three.replicas:
            cut = await three.follower("n3")
            other = three.beside(cut)
            ending = await run_on(cut, "n3", "", *UNTIL_TOLD)
            with three.machine_of(cut).kept_from(port=EXECUTOR_PORT, addresses=[three.machines["n3"].address]):
                since = time.monotonic()
                await end_unseen(cut, ending)
                for replica in three.replicas:
                    await exited_with_7(replica, ending)
                    await three.until("n3", READY, through=replica)
                print(f"API without its executor: the other one follows it after {time.monotonic() - since:.2f} s")
                assert time.monotonic() - since < LEASE
                await live(other, "n3")
                await asyncio.sleep(max(0.0, since + 1.2 * LEASE - time.monotonic()))
        found = await three.one.inspect(web)
        assert (found.node, found.state.running) == ("n3", True)
        await beats.until_after(time.clock_gettime(time.CLOCK_BOOTTIME))
        assert len(beats.runs()) == 1, "its lease was over"
