"""`python -m tests.bench.placement`: how long a placement takes among many nodes, and what a replica holds for it.

A store in memory with the records, the nodes of a registry without connections, and the operation that CreateContainer
places by. Needs no root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import random
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

from api_service.nodes.registry import NodeRegistry
from api_service.operations.node_choice import choose_node
from api_service.placement.constraints import parse_constraint
from api_service.placement.place import Demand
from api_service.records.codec import Codec
from api_service.records.config import ContainerConfig, HostConfig, NetworkingConfig
from api_service.records.container import ContainerRecord, Phase
from api_service.records.container_repository import ContainerRepository
from api_service.records.event_log import EventLog
from api_service.records.node_usage import Booking, NodeUsages
from api_service.store.memory_store import MemoryStore
from api_service.store.store import Put
from common.errors import SlipwayError
from tests.bench.statistics import percentile
from tests.fixtures.nodes import GIB, node_record

_AIM = 5.0  # milliseconds, p99
_BATCH = 100  # records in one commit
_ZONES = 8


def main() -> int:
    options = _options()
    return asyncio.run(_measure(nodes=options.nodes, containers=options.containers, rounds=options.rounds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.placement")
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--containers", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=2_000)
    return parser.parse_args()


async def _measure(*, nodes: int, containers: int, rounds: int) -> int:
    dice = random.Random(1)
    names = [f"node-{index:04}" for index in range(nodes)]
    async with MemoryStore() as store:
        usages = NodeUsages(store)
        registry = NodeRegistry()
        for name in names:
            record = node_record(name, memory=64 * GIB, labels={"zone": f"z{dice.randrange(_ZONES)}"})
            registry.add(cast("Any", SimpleNamespace(name=name, record=record)))
        await _fill(store, usages, names, containers, dice)
        records = ContainerRepository(store, EventLog(store), usages)
        began = time.perf_counter()
        await records.counts()
        loaded = time.perf_counter() - began
        engine = cast("Any", SimpleNamespace(nodes=registry, usages=usages, containers=records))
        took = await _place(engine, dice, rounds)
    print(f"{nodes} nodes, {containers} containers, {rounds} placements")
    for what, times in zip(("by the clock", "of the processor"), zip(*took, strict=True), strict=True):
        p50, p99 = percentile(times, 50), percentile(times, 99)
        print(f"{what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms; aim: p99 {_AIM:g}: {'met' if p99 <= _AIM else 'NOT MET'}")
    print(f"containers read in {loaded:.2f} s, beside everything else")
    return 0


async def _fill(store: MemoryStore, usages: NodeUsages, names: list[str], containers: int, dice: random.Random) -> None:
    codec, template = Codec(ContainerRecord), _container()
    for begin in range(0, containers, _BATCH):
        puts = []
        for index in range(begin, min(begin + _BATCH, containers)):
            record = dataclasses.replace(template, id=f"{index:064x}", name=f"c{index}", node=dice.choice(names))
            puts.append(Put(key=f"containers/{record.id}", value=codec.encode(record)))
        await store.commit(*puts)
    for name in names:
        before = await usages.get(name)
        booking = Booking(memory=dice.randrange(60) * GIB, nano_cpus=dice.randrange(4) * 1_000_000_000)
        await store.commit(usages.put(name, before, before.record.plus(booking)))


async def _place(engine: Any, dice: random.Random, rounds: int) -> list[tuple[float, float]]:
    """Milliseconds by the clock, and those that the processor had work for it. What is placed is on record for the
    next."""
    template = _container()
    took: list[tuple[float, float]] = []
    for number in range(rounds):
        name = ""
        zone = parse_constraint(f"node.labels.zone==z{dice.randrange(_ZONES)}")
        demand = Demand(
            booking=Booking(memory=dice.randrange(16) * GIB),
            constraints=(zone,) if dice.random() < 0.5 else (),
            os="linux",
            architecture="amd64",
            pack=dice.random() < 0.5,
        )
        began, idle = time.perf_counter(), time.thread_time()
        with contextlib.suppress(SlipwayError):  # a refusal takes its time as well
            name = (await choose_node(engine, demand, subject="a container")).name
        took.append(((time.perf_counter() - began) * 1000, (time.thread_time() - idle) * 1000))
        if name:
            placed = dataclasses.replace(template, id=f"{dice.getrandbits(256):064x}", name=f"p{number}", node=name)
            await engine.containers.add(placed)
    return took


def _container() -> ContainerRecord:
    return ContainerRecord(
        id="",
        name="",
        created_at=0,
        phase=Phase.READY,
        path="sleep",
        args=("60",),
        config=ContainerConfig(image="busybox", labels={"app": "web"}, env=("PATH=/bin", "A=b")),
        host_config=HostConfig(),
        networking_config=NetworkingConfig(),
        image_id="sha256:" + "1" * 64,
        node="",
        platform="linux/amd64",
    )


if __name__ == "__main__":
    sys.exit(main())
