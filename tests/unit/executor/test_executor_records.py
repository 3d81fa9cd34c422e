from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import NotFound
from common.sqlite import Database
from executor_service import journal, records
from executor_service.container import NameResolution, NetworkMode
from executor_service.container_record import Phase, Run
from executor_service.journal import Journal
from executor_service.journal_entries import Exited, Signaled, Started
from executor_service.oci.runtime import CreatedProcess, Process
from executor_service.records import ContainerRecords
from tests.fixtures.fake_host.specs import container_id, container_spec

_BOX = container_id(1)
_RUN = Run(
    start_id="s1",
    process=CreatedProcess(container=Process(pid=1, start_time=2), monitor=Process(pid=3, start_time=4)),
    boot_id="b",
)
_STARTED = Started(start_id="s1", pid=1, sandbox_id=_BOX, netns_path="/x")


@asynccontextmanager
async def _records(directory: Path) -> AsyncIterator[ContainerRecords]:
    async with Database(directory / "state.db", schema=journal.SCHEMA + records.SCHEMA) as database:
        kept = Journal(database)
        await kept.load()
        loaded = ContainerRecords(database, kept)
        await loaded.load()
        yield loaded


async def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    spec = replace(
        container_spec(),
        env=("A=b", "C=d\nwith a newline"),
        network_mode=NetworkMode.HOST,
        names=NameResolution(extra_hosts=(("db", "10.0.0.1"),)),
        annotations={"k": "v"},
    )
    async with _records(tmp_path) as kept:
        await kept.insert(spec)
        await kept.transition(_BOX, _STARTED, phase=Phase.RUNNING, run=_RUN)
        await kept.transition(_BOX, Signaled(signal=15))
        before = kept.get(_BOX)
        assert before.spec == spec
        assert before.started is not None
        assert before.last is not None
        assert (before.started.sequence, before.last.sequence) == (1, 2)
        assert before.outcome == before.started
    async with _records(tmp_path) as kept:
        assert kept.get(_BOX) == before


async def test_changes_under_way_at_once_do_not_undo_each_other(tmp_path: Path) -> None:
    async with _records(tmp_path) as kept:
        await kept.insert(container_spec())
        await kept.transition(_BOX, _STARTED, phase=Phase.RUNNING, run=_RUN)
        # The signal's caller read the record before the exit was written.
        await asyncio.gather(
            kept.transition(_BOX, Exited(start_id="s1", exit_code=0), phase=Phase.STOPPED, run=None),
            kept.transition(_BOX, Signaled(signal=15)),
        )
        assert (kept.get(_BOX).phase, kept.get(_BOX).run) == (Phase.STOPPED, None)
        in_memory = kept.get(_BOX)
    async with _records(tmp_path) as kept:
        assert kept.get(_BOX) == in_memory


async def test_a_cancelled_change_that_is_written_is_in_memory(tmp_path: Path) -> None:
    async with _records(tmp_path) as kept:
        await kept.insert(container_spec())
        change = asyncio.ensure_future(kept.update(_BOX, starting="s1"))
        await asyncio.sleep(0)
        change.cancel()
        await asyncio.wait({change})
        await kept.update(_BOX, removing=True)
        assert (kept.get(_BOX).starting, kept.get(_BOX).removing) == ("s1", True)


async def test_a_removed_container_has_no_transitions(tmp_path: Path) -> None:
    async with _records(tmp_path) as kept:
        await kept.insert(container_spec())
        await kept.delete(_BOX)
        await kept.delete(_BOX)
        with pytest.raises(NotFound):
            await kept.transition(_BOX, Signaled(signal=9))
        with pytest.raises(NotFound):
            kept.get(_BOX)
        await kept.insert(container_spec())
        entry = await kept.transition(_BOX, Signaled(signal=9))
        assert entry.sequence == 1, "the refused transition is not in the journal"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("spec", "{"),
        ("spec", json.dumps({"id": _BOX})),
        ("spec", json.dumps({"id": "b" * 64, "image_id": "", "args": ["x"]})),
        ("phase", "dancing"),
        ("run", '{"start_id": 1}'),
        ("last", "[]"),
    ],
)
async def test_an_unreadable_row_is_broken_and_alone(tmp_path: Path, column: str, value: str) -> None:
    async with _records(tmp_path) as kept:
        await kept.insert(container_spec(1))
        await kept.insert(container_spec(2))
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute(f"UPDATE containers SET {column} = ? WHERE id = ?", (value, _BOX))
    connection.close()
    async with _records(tmp_path) as kept:
        assert [record.phase for record in kept.all()] == [Phase.BROKEN, Phase.CREATED]
        assert kept.get(_BOX).spec is None
        assert kept.get(_BOX).error
