"""Records moved from one store to another and back."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_service.etcd.cluster import open_cluster
from api_service.etcd.target import EtcdTarget
from api_service.records.event import Event, EventType
from api_service.records.event_log import BEGINNING, EventLog
from api_service.store.key_space import MAX_OPERATIONS
from api_service.store.memory_store import MemoryStore
from api_service.store.migration import check_copy, copy_records, finish, refuse_unfinished
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Delete, Put, Store
from common.errors import DataLoss, FailedPrecondition
from tests.fixtures.etcd import EtcdCluster

_COUNT = 300


def event(number: int, time: int) -> Event:
    return Event(type=EventType.CONTAINER, action=str(number), actor_id="a", time=time)


async def fill(store: Store) -> None:
    """Many small commits, rewrites, removals, large values, and events whose times run against their order."""
    log = EventLog(store)
    for number in range(_COUNT):
        await store.commit(Put(key=f"names/ü{number}", value=b""), Put(key=f"containers/{number}", value=bytes(1000)))
    for number in range(50):
        told = log.puts([event(2 * number, 1000 - number), event(2 * number + 1, 1000 - number)])
        await store.commit(Put(key=f"containers/{number}", value=b"\xff\0"), Delete(key=f"names/ü{number}"), *told)
    await store.commit(Put(key="large", value=bytes(1_000_000)))
    await store.commit(Put(key="larger", value=bytes(1_200_000)))


async def told(store: Store) -> list[str]:
    return [event.action async for _, event in EventLog(store).kept(after=BEGINNING)]


async def records(store: Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in await store.list("")}


async def test_there_and_back_everything_is_the_same(tmp_path: Path, etcd_target: EtcdTarget) -> None:
    async with SqliteStore(tmp_path / "from.db") as source, open_cluster(etcd_target) as cluster:
        await fill(source)
        wanted = await records(source)
        async with SqliteStore(tmp_path / "back.db") as back:
            for one, other in ((source, cluster.store), (cluster.store, back)):
                assert await copy_records(one, other) == len(wanted)
                with pytest.raises(FailedPrecondition):
                    await refuse_unfinished(other)
                await check_copy(one, other)
                await finish(other)
                await refuse_unfinished(other)
                assert await records(other) == wanted
                assert await told(other) == [str(number) for number in range(100)]


async def test_target_that_holds_something_is_refused() -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        await source.commit(Put(key="a", value=b"1"))
        await target.commit(Put(key="b", value=b"1"))
        with pytest.raises(FailedPrecondition, match="holds records already") as caught:
            await copy_records(source, target)
        assert caught.value.reason == "STORE_NOT_EMPTY"
        assert await records(target) == {"b": b"1"}


async def test_copy_that_was_cut_off_is_begun_anew_and_no_source() -> None:
    async with MemoryStore() as source, MemoryStore() as target, MemoryStore() as other:
        await source.commit(Put(key="a", value=b"1"))
        await copy_records(source, target)
        await target.commit(*(Put(key=f"half/{number}", value=b"") for number in range(MAX_OPERATIONS)))
        with pytest.raises(FailedPrecondition, match="cut off"):
            await copy_records(target, other)
        await copy_records(source, target)
        await check_copy(source, target)
        await finish(target)
        assert await records(target) == {"a": b"1"}


@pytest.mark.parametrize("wrong", [Put(key="a", value=b"2"), Delete(key="a"), Put(key="b", value=b"")])
async def test_a_record_that_differs_is_found(wrong: Put | Delete) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        await source.commit(Put(key="a", value=b"1"))
        await copy_records(source, target)
        await target.commit(wrong)
        with pytest.raises(DataLoss, match="1 of 1 records"):
            await check_copy(source, target)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory for a command that gives up root."""
    with tempfile.TemporaryDirectory(prefix="migrate-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def migrate(state: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api_service", "migrate", "--state-dir", str(state), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_command_moves_an_embedded_store_to_etcd_and_back(
    open_place: Path, etcd: EtcdCluster, etcd_target: EtcdTarget
) -> None:
    first, second = open_place / "first", open_place / "second"
    url = f"etcd://{','.join(etcd.endpoints)}"
    there = ("--target", url, "--etcd-prefix", etcd_target.prefix)
    back = ("--source", url, "--target", "embedded", "--etcd-prefix", etcd_target.prefix)
    async with SqliteStore(first / "api.db") as store:
        await fill(store)
        wanted = await records(store)
        code, said = await migrate(first, *there)
        assert (code, "another process" in said) == (2, True), said  # a service that runs
    code, said = await migrate(first, *there)
    assert code == 0, said
    async with open_cluster(etcd_target) as cluster:
        assert await records(cluster.store) == wanted
        code, said = await migrate(second, *back)
        assert (code, "1 API services run on" in said) == (2, True), said
    code, said = await migrate(first, *there)
    assert (code, "holds records already" in said) == (2, True), said
    code, said = await migrate(second, *back)
    assert code == 0, said
    async with SqliteStore(second / "api.db") as store:
        assert await records(store) == wanted
    code, said = await migrate(open_place / "nowhere", *there)
    assert (code, "there is no embedded store" in said) == (2, True), said
