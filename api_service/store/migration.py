"""All records from one store to another: `python -m api_service migrate`.

What one commit wrote and is still there is written by one commit again, in the same order: the order of events is that
of the commits that wrote them. A mark in the target says that it is not whole yet; no service starts on such a store,
and the next attempt begins it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import structlog

from api_service.store.key_space import MAX_COMMIT_BYTES, MAX_OPERATIONS
from api_service.store.store import Delete, Entry, Put, Store
from common.errors import DataLoss, FailedPrecondition

_log = structlog.get_logger(__name__)

_MARK = "migration"
_EVENTS = "events/"
_TELL_EVERY = 10_000  # records


async def copy_records(source: Store, target: Store) -> int:
    """How many there are. The target has to be empty, or what a copy that was cut off has left. Raises
    FailedPrecondition (`STORE_NOT_EMPTY`, `STORE_UNFINISHED`), and what the stores raise."""
    await refuse_unfinished(source)
    await _prepare(target)
    entries = sorted(await source.list(""), key=lambda entry: entry.revision)
    copied = told = 0
    for together in _commits(entries):
        await target.commit(*(Put(key=entry.key, value=entry.value, expected_revision=0) for entry in together))
        copied += len(together)
        if copied - told >= _TELL_EVERY:
            told = copied
            _log.info("records copied", copied=copied, all=len(entries))
    return copied


async def check_copy(source: Store, target: Store) -> None:
    """Record by record. Raises DataLoss."""
    wanted = {entry.key: entry.value for entry in await source.list("")}
    found = {entry.key: entry.value for entry in await target.list("") if entry.key != _MARK}
    wrong = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if wrong:
        raise DataLoss(
            f"{len(wrong)} of {len(wanted)} records are not as they were, the first is {wrong[0]}; the source is "
            "unchanged, migrate again",
            reason="MIGRATION_WRONG",
        )


async def finish(target: Store) -> None:
    await target.commit(Delete(key=_MARK))


async def refuse_unfinished(store: Store) -> None:
    """Raises FailedPrecondition."""
    if await store.get(_MARK) is not None:
        raise FailedPrecondition(
            "a migration into this store was cut off, it holds a part of the records; run migrate again, or use the "
            "store that it was made from",
            reason="STORE_UNFINISHED",
        )


async def _prepare(target: Store) -> None:
    unfinished = await target.get(_MARK) is not None
    if not unfinished and await target.list("", limit=1):
        raise FailedPrecondition(
            "the target holds records already, which would be mixed up; give an empty one, of another path or prefix",
            reason="STORE_NOT_EMPTY",
        )
    await target.commit(Put(key=_MARK, value=b""))
    while left := [entry for entry in await target.list("", limit=MAX_OPERATIONS) if entry.key != _MARK]:
        await target.commit(*(Delete(key=entry.key) for entry in left))


def _commits(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Whole commits, as many as fit together; those that tell events by themselves, for the places of their events
    are counted by commit."""
    gathered: list[Entry] = []
    size = 0
    for _, each in groupby(entries, key=lambda entry: entry.revision):
        commit = list(each)
        alone = any(entry.key.startswith(_EVENTS) for entry in commit)
        more = sum(len(entry.key.encode()) + len(entry.value) for entry in commit)
        if gathered and (alone or len(gathered) + len(commit) > MAX_OPERATIONS or size + more > MAX_COMMIT_BYTES):
            yield gathered
            gathered, size = [], 0
        if alone:
            yield commit
            continue
        gathered += commit
        size += more
    if gathered:
        yield gathered
