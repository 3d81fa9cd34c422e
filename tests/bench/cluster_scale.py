"""One API service that holds 30,000 containers on 1,000 nodes: what a page of them takes, and how much memory they.

A container is made through the API, and its record copied into the store for all the others, as are its node's. All
nodes answer, but have none of the copies, which nobody asks them for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.v1 import container_service_pb2 as pb

from api_service.etcd.cluster import open_cluster
from api_service.etcd.target import EtcdTarget
from api_service.nodes.contact import NOT_YET
from api_service.records.codec import Codec
from api_service.records.container import ContainerRecord
from api_service.records.event_log import EventLog
from api_service.records.node import NodeState
from api_service.records.node_repository import NodeRepository
from api_service.store.store import Put, Store
from tests.bench import report
from tests.bench.control_plane import MET, ControlPlane, control_plane
from tests.bench.fake_nodes import node_address, node_name
from tests.bench.memory import read_memory, status_size
from tests.bench.statistics import percentile

_GROUPS = 30  # a label's values
_PAGE = 100
_BATCH = 60  # records in one commit, each with its name
_REST = 5.0  # seconds
_MOST_RESTLESS = 20  # seconds
_PAGE_AIM, _MEMORY_AIM = 10.0, 500.0  # milliseconds, MB
FILTERED, UNFILTERED = f"a page of {_PAGE}, filter that passes one of {_GROUPS}", f"a page of {_PAGE}, no filter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """`serves`, `met`: seconds from the service's start. `resting`: % of a core. `pages`: milliseconds. `memory`,
    `resident`: MB of PSS and RSS, after the pages."""

    nodes: int
    containers: int
    serves: float
    met: float
    resting: float
    pages: dict[str, list[float]]
    memory: float
    resident: float


async def measure(directory: Path, *, nodes: int, containers: int, pages: int) -> Scale:
    async with control_plane(directory / "scale", "scale", members=1, nodes=nodes) as plane:
        await plane.take_in(1)
        await plane.load_image()
        template = await plane.client.run("sleep", "3600", name="box-0", config={"labels": _labels(0)})
        await plane.api.stop()
        await _fill(plane, template, nodes, containers)
        begun = time.perf_counter()
        await plane.api.start(ready=MET)
        serves = time.perf_counter() - begun
        await plane.met(nodes)
        met = time.perf_counter() - begun
        await _at_rest(plane)
        resting = await _processor_share(plane)
        taken = await _pages(plane, pages)
        return Scale(
            nodes=nodes,
            containers=containers,
            serves=serves,
            met=met,
            resting=resting,
            pages=taken,
            memory=read_memory([plane.api.pid]).pss / 1e6,
            resident=status_size(plane.api.pid, "VmRSS") / 1e6,
        )


def _labels(number: int) -> dict[str, str]:
    return {"app": f"app-{number % _GROUPS}", "tier": "web"}


async def _fill(plane: ControlPlane, template: str, nodes: int, containers: int) -> None:
    assert plane.etcd is not None
    async with open_cluster(EtcdTarget(endpoints=plane.etcd.endpoints)) as cluster:
        await _add_nodes(cluster.store, plane.nodes, nodes)
        await _add_containers(cluster.store, template, nodes, containers)


async def _add_nodes(store: Store, sockets: Path, count: int) -> None:
    repository = NodeRepository(store, EventLog(store))
    first = await repository.find(node_name(0))
    away = dataclasses.replace(first.status, state=NodeState.UNREACHABLE, reason=NOT_YET)
    records = [
        dataclasses.replace(
            first,
            name=node_name(number),
            address=node_address(sockets, number),
            executor_id=node_name(number),
            status=away,
        )
        for number in range(1, count)
    ]
    await asyncio.gather(*map(repository.add, records))


async def _add_containers(store: Store, template: str, nodes: int, count: int) -> None:
    codec = Codec(ContainerRecord)
    entry = await store.get(f"containers/{template}")
    assert entry is not None
    first = codec.decode(entry).record

    def puts(number: int) -> Sequence[Put]:
        container_id = f"{number:064x}"
        config = dataclasses.replace(first.config, hostname=container_id[:12], labels=_labels(number))
        record = dataclasses.replace(
            first,
            id=container_id,
            name=f"box-{number}",
            created_at=first.created_at + number,
            config=config,
            node=node_name(number % nodes),
        )
        return (
            Put(key=f"containers/{container_id}", value=codec.encode(record)),
            Put(key=f"names/{record.name}", value=container_id.encode()),
        )

    for begin in range(1, count, _BATCH):
        batch = range(begin, min(begin + _BATCH, count))
        await store.commit(*(put for number in batch for put in puts(number)))


async def _at_rest(plane: ControlPlane) -> None:
    """Until what follows the first contact with all nodes is done: less than half of a core for a second. A busy
    machine may not come to that."""
    for _ in range(_MOST_RESTLESS):
        if await _processor_share(plane, seconds=1) < 50:
            return


async def _processor_share(plane: ControlPlane, *, seconds: float = _REST) -> float:
    before, begun = plane.processor_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    spent = plane.processor_time()["API service"] - before["API service"]
    return 100 * spent / (time.perf_counter() - begun)


async def _pages(plane: ControlPlane, count: int) -> dict[str, list[float]]:
    asked = {
        FILTERED: pb.ListContainersRequest(all=True, page_size=_PAGE, filters=pb.ContainerFilters(label=["app=app-7"])),
        UNFILTERED: pb.ListContainersRequest(all=True, page_size=_PAGE),
    }
    for request in asked.values():  # records are decoded once, when they are looked at first
        await plane.client.containers.ListContainers(request, timeout=60)
    taken: dict[str, list[float]] = {what: [] for what in asked}
    for _ in range(count):
        for what, request in asked.items():
            begun = time.perf_counter()
            answer = await plane.client.containers.ListContainers(request, timeout=60)
            taken[what].append((time.perf_counter() - begun) * 1000)
            assert answer.containers
    return taken


def tables(found: Scale) -> str:
    body = [
        *(
            (f"{what}, p{percent}", f"{percentile(taken, percent):.1f} ms")
            for what, taken in found.pages.items()
            for percent in (50, 99)
        ),
        ("memory of the API service, PSS", f"{found.memory:.0f} MB"),
        ("memory of the API service, RSS", f"{found.resident:.0f} MB"),
        ("from its start until it serves", f"{found.serves:.1f} s"),
        ("from its start until it has met all nodes", f"{found.met:.1f} s"),
        ("its processor time at rest, of one core", f"{found.resting:.0f} %"),
    ]
    return report.table((f"{found.nodes:,} nodes, {found.containers:,} containers", ""), body)


def aims(found: Scale) -> Sequence[report.Bound]:
    return [
        report.Bound(f"{FILTERED}, p50, ms", percentile(found.pages[FILTERED], 50), _PAGE_AIM),
        report.Bound("memory of the API service, RSS, MB", found.resident, _MEMORY_AIM),
    ]
