"""What a create, a start and an inspect take through etcd and through the embedded store, and how many a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import report
from tests.bench.control_plane import ControlPlane, client_channel, control_plane
from tests.bench.statistics import percentile
from tests.fixtures.slipway import Slipway

EMBEDDED, ONE, THREE = "embedded", "etcd, 1 member", "etcd, 3 members"
_MEMBERS = {EMBEDDED: 0, ONE: 1, THREE: 3}
_NODES = 3
_WARM_UP = 10  # rounds that are not kept
_STEPS = ("create", "start", "inspect")
_CLIENTS = 16
_AIM = 5.0  # milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """`times`: milliseconds by store and step. `rates`: by store, of each round, how many were created and inspected in
    a second, and the processor time of each part as a percentage of one core."""

    times: Mapping[str, Mapping[str, list[float]]] = field(
        default_factory=lambda: {name: {step: [] for step in _STEPS} for name in _MEMBERS}
    )
    rates: Mapping[str, list[Mapping[str, float]]] = field(default_factory=lambda: {name: [] for name in _MEMBERS})


async def measure(directory: Path, *, containers: int, rounds: int, seconds: float) -> Steps:
    """`rounds` of so many `seconds` of throughput each."""
    found = Steps()
    async with _planes(directory) as planes:
        for number in range(-_WARM_UP, containers):
            for plane in planes:
                await _life(plane.client, f"box-{number}", found.times[plane.name] if number >= 0 else None)
        for _ in range(rounds):
            for plane in planes:
                found.rates[plane.name].append(await _throughput(plane, seconds))
    return found


@asynccontextmanager
async def _planes(directory: Path) -> AsyncIterator[Sequence[ControlPlane]]:
    async with AsyncExitStack() as stack:
        planes = []
        for name, members in _MEMBERS.items():
            plane = control_plane(directory / f"steps-{members}", name, members=members, nodes=_NODES)
            planes.append(await stack.enter_async_context(plane))
            await planes[-1].take_in(_NODES)
            await planes[-1].load_image()
        yield planes


async def _life(client: Slipway, name: str, times: Mapping[str, list[float]] | None) -> None:
    at = [time.perf_counter()]
    container = await client.create("sleep", name=name)
    at.append(time.perf_counter())
    await client.start(container)
    at.append(time.perf_counter())
    await client.inspect(container)
    at.append(time.perf_counter())
    if times is not None:
        for step, begun, ended in zip(_STEPS, at, at[1:], strict=False):
            times[step].append((ended - begun) * 1000)


async def _throughput(plane: ControlPlane, seconds: float) -> Mapping[str, float]:
    async with AsyncExitStack() as stack:
        clients = [
            plane.client.on(await stack.enter_async_context(client_channel(plane.api.address))) for _ in range(_CLIENTS)
        ]
        before, begun = plane.processor_time(), time.perf_counter()
        made = sum(await asyncio.gather(*(_create_until(client, begun + seconds) for client in clients)))
        took, after = time.perf_counter() - begun, plane.processor_time()
    used = {part: 100 * (after[part] - before[part]) / took for part in before}
    return {"created and inspected, a second": made / took, **{f"{part}, % of a core": used[part] for part in used}}


async def _create_until(client: Slipway, end: float) -> int:
    made = 0
    while time.perf_counter() < end:
        await client.inspect(await client.create("sleep"))
        made += 1
    return made


def tables(found: Steps) -> str:
    steps = [
        (
            f"{step}, p{percent}, ms",
            *(f"{percentile(found.times[name][step], percent):.1f}" for name in _MEMBERS),
        )
        for step in _STEPS
        for percent in (50, 99)
    ]
    shares = [
        (what, *(f"{percentile([each[what] for each in found.rates[name]], 50):,.0f}" for name in _MEMBERS))
        for what in found.rates[EMBEDDED][0]
    ]
    return "\n\n".join(
        [
            report.table((f"one client, {_NODES} simulated nodes", *_MEMBERS), steps),
            report.table((f"{_CLIENTS} clients, p50 of {len(found.rates[EMBEDDED])} rounds", *_MEMBERS), shares),
        ]
    )


def aims(found: Steps) -> Sequence[report.Bound]:
    start = {name: percentile(found.times[name]["start"], 50) for name in _MEMBERS}
    return [
        report.Bound("start p50, three members of etcd over embedded, ms", start[THREE] - start[EMBEDDED], _AIM),
        report.Bound("start p50, one member of etcd over embedded, ms", start[ONE] - start[EMBEDDED], _AIM),
    ]
