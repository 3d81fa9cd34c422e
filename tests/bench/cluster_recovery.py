"""How long what dies is missed in a cluster: an API service, etcd's leader, a whole machine.

The cluster is that of the tests: three machines in network namespaces, real containers, certificates between all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from slipway.v1.container_pb2 import Placement

from tests.bench import report
from tests.bench.statistics import percentile
from tests.fixtures.cluster import (
    LEASE,
    LOST,
    READY,
    UNREACHABLE,
    UNTIL_TOLD,
    Cluster,
    again_and_again,
    end_unseen,
    exited_with_7,
    live,
    run_on,
)
from tests.fixtures.cluster_up import cluster
from tests.fixtures.slipway import Slipway

_LIFE = "a container is created, started, removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Seconds, by the fault and what it was until."""

    times: dict[str, list[float]] = field(default_factory=dict)


class _Fault:
    """Its time begins when it is made."""

    def __init__(self, name: str, found: Recovery) -> None:
        self._name = name
        self._found = found
        self._since = time.monotonic()

    async def until(self, what: str, *attempts: Callable[[], Awaitable[object]]) -> None:
        """Until each of them has succeeded once."""
        await asyncio.gather(*(again_and_again(each, since=self._since) for each in attempts))
        self.over(what)

    def over(self, what: str) -> None:
        self._found.times.setdefault(f"{self._name}, until {what}", []).append(time.monotonic() - self._since)


async def measure(directory: Path, *, rounds: int) -> Recovery:
    found = Recovery()
    async with AsyncExitStack() as stack:
        # The command that makes certificates says what it makes.
        said = stack.enter_context((directory / "certificates.log").open("w"))
        stack.enter_context(redirect_stdout(said))
        made = await stack.enter_async_context(cluster(directory))
        # Who is left follows every node, and is killed next: what is not kept makes that so for the first that is.
        await _kill_api(made, made.other, Recovery())
        for number in range(rounds):
            await _kill_api(made, made.replicas[number % 2], found)
        for _ in range(rounds):
            await _kill_leader(made, found)
        for _ in range(rounds):
            await _power_off(made, found)
    return found


async def _kill_api(made: Cluster, victim: Slipway, found: Recovery) -> None:
    """Its clients go to the other one. On each node a container ends meanwhile, of which who follows it has to tell."""
    other = made.beside(victim)
    ending = [await run_on(other, node, "", *UNTIL_TOLD) for node in made.machines]
    fault = _Fault("SIGKILL of an API service", found)
    await victim.api.kill()
    await fault.until("the other one answers", partial(other.inspect, ending[0]))
    for container in ending:
        await end_unseen(other, container)
    await fault.until(f"{_LIFE} on each node", *(partial(live, other, node) for node in made.machines))
    for container in ending:
        await exited_with_7(other, container)
    fault.over("an end that nobody asked for is known")
    await asyncio.gather(*(other.remove(container) for container in ending))
    await victim.api.start()


async def _kill_leader(made: Cluster, found: Recovery) -> None:
    leader = made.etcd.leader()
    fault = _Fault("SIGKILL of etcd's leader", found)
    await asyncio.to_thread(leader.kill)
    await fault.until(f"{_LIFE} through each API service", *(partial(live, each, "n1") for each in made.replicas))
    await asyncio.to_thread(made.etcd.start, leader)


async def _power_off(made: Cluster, found: Recovery) -> None:
    """With its member of etcd, and without a word to anybody; the API services are on the other two. A container that
    may run elsewhere began there, so the machine has had its lease."""
    machine = made.machines["n3"]
    moving = await made.run_movable(machine.name, "moving")
    with machine.cut_off():
        fault = _Fault("a machine is off", found)
        made.member(machine).kill()
        await machine.power_off()
        attempts = [partial(live, each, "n2") for each in made.replicas]
        await fault.until(f"{_LIFE} on another, through each API service", *attempts)
        await made.until(machine.name, UNREACHABLE, LOST)
        fault.over("it is known to be unreachable")
        await made.until(machine.name, LOST)
        fault.over(f"it is known to be lost (lease of {LEASE} s)")
        await made.runs_elsewhere(moving, machine.name)
        fault.over("its container runs elsewhere")
    await asyncio.gather(machine.executor.start(), asyncio.to_thread(made.etcd.start, made.member(machine)))
    await made.until(machine.name, READY)
    await made.one.remove(moving)
    await _leased(made, machine.name)


async def _leased(made: Cluster, node: str) -> None:
    """Until it has a lease, without which it starts nothing that may run elsewhere."""
    only = Placement(constraints=[f"node.name=={node}"])
    container = await made.one.create("true", network_mode="none", placement=only, reschedule="on_node_loss")
    await again_and_again(partial(made.one.start, container), since=time.monotonic())
    await made.one.remove(container)


def tables(found: Recovery) -> str:
    body = [
        (what, f"{percentile(times, 50):.2f}", f"{max(times):.2f}", str(len(times)))
        for what, times in found.times.items()
    ]
    return report.table(("seconds", "p50", "worst", "rounds"), body)
