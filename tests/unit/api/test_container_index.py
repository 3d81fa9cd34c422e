"""The index of containers: it answers as a look at every record would, and looks at few of them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence, Set

import pytest

from api_service.records.codec import Codec
from api_service.records.config import ContainerConfig, HostConfig, NetworkingConfig
from api_service.records.container import ContainerRecord, ContainerState, Phase, Status
from api_service.records.container_index import (
    ACTIVE,
    ContainerIndex,
    Term,
    on_node,
    place_of,
    with_label,
    with_status,
)
from api_service.records.container_repository import Changed, ContainerRepository
from api_service.records.event_log import EventLog
from api_service.records.node_usage import NodeUsages
from api_service.store.memory_store import MemoryStore
from api_service.store.store import Change, Delete, Put, Store

_PREFIX = "containers/"


class CountingCodec(Codec[ContainerRecord]):
    decoded = 0

    def _parse(self, key: str, value: bytes) -> ContainerRecord:
        self.decoded += 1
        return super()._parse(key, value)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with MemoryStore(history_limit=50) as store:  # a long pause is more than it can tell
        yield store


@pytest.fixture
def codec() -> CountingCodec:
    return CountingCodec(ContainerRecord)


def record(number: int, **more: object) -> ContainerRecord:
    made = ContainerRecord(
        id=f"{number:064x}",
        name=f"c{number}",
        created_at=number // 3,  # some are equally old
        phase=Phase.READY,
        path="sh",
        args=(),
        config=ContainerConfig(image="i", labels={"tier": f"t{number % 4}", f"only{number % 5}": ""}),
        host_config=HostConfig(),
        networking_config=NetworkingConfig(),
        image_id="sha256:1",
        node="local",
        platform="linux/amd64",
    )
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]  # any field


def put(codec: Codec[ContainerRecord], each: ContainerRecord) -> Put:
    return Put(key=_PREFIX + each.id, value=codec.encode(each))


def holds(each: ContainerRecord, term: Term) -> bool:
    kind, *more = term
    if kind == "active":
        return each.state.active
    if kind == "status":
        return each.status.value == more[0]
    labels = each.config.labels
    return more[0] in labels and (len(more) == 1 or labels[more[0]] == more[1])


_ASKED: Sequence[Sequence[Set[Term]]] = (
    (),
    ({ACTIVE},),
    ({with_label("tier=t1")},),
    ({with_label("only3")},),
    ({with_label("only3=")}, {with_label("tier=t2"), with_label("tier=t1")}, {ACTIVE}),
    ({with_status(Status.EXITED), with_status(Status.REMOVING)},),
    ({with_label("nobody")},),
)


async def test_it_answers_as_all_records_would_whatever_happens_to_them(store: Store, codec: CountingCodec) -> None:
    dice = random.Random(7)
    index = ContainerIndex(store, codec, _PREFIX)
    there: dict[int, ContainerRecord] = {}
    for _ in range(300):
        for _ in range(dice.choice((0, 1, 1, 3, 80))):
            number = dice.randrange(40)
            match dice.randrange(8):
                case 0:
                    there.pop(number, None)
                    await store.commit(Delete(key=_PREFIX + f"{number:064x}"))
                case 1:
                    there.pop(number, None)
                    await store.commit(Put(key=_PREFIX + f"{number:064x}", value=b"no record"))
                case 2:
                    await store.commit(Put(key=f"names/c{number}", value=b""))
                case _:
                    state = ContainerState(running=dice.random() < 0.5, started_at=dice.choice((None, 1)))
                    node = dice.choice(("n0", "n1"))
                    there[number] = record(number, state=state, phase=dice.choice(list(Phase)), node=node)
                    await store.commit(put(codec, there[number]))
        shown = sorted((each for each in there.values() if each.phase is not Phase.CREATING), key=place_of)
        before, since = (dice.choice([None, *map(place_of, shown), (5, "8")]) for _ in range(2))
        for having in _ASKED:
            expected = [
                each
                for each in reversed(shown)
                if all(any(holds(each, term) for term in terms) for terms in having)
                and (before is None or place_of(each) < before)
                and (since is None or place_of(each) > since)
            ]
            assert list(await index.newest_first(having, before=before, since=since)) == expected
        for node in ("n0", "n1", "n2"):
            here = {each.id: each for each in await index.having(on_node(node))}
            assert here == {each.id: each for each in there.values() if each.node == node}
        assert +Counter(await index.counts()) == Counter(each.node for each in there.values())


async def test_only_what_has_changed_is_decoded(store: Store, codec: CountingCodec) -> None:
    index = ContainerIndex(store, codec, _PREFIX)
    await store.commit(*(put(codec, record(number)) for number in range(100)))
    assert len(list(await index.newest_first())) == 100
    assert codec.decoded == 100
    for name in ("first", "second", "third"):
        await store.commit(put(codec, record(5, name=name)))
    assert [each.name for each in await index.newest_first([{with_label("only0")}])][-2] == "third"
    assert codec.decoded == 101


async def test_it_is_kept_up_while_nobody_asks(
    store: Store, codec: CountingCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More changes than the store can tell of at once have passed by then."""
    monkeypatch.setattr("api_service.records.container_index._KEEP_UP", 0.0)
    index = ContainerIndex(store, codec, _PREFIX)
    await store.commit(*(put(codec, record(number)) for number in range(50)))
    keeping = asyncio.create_task(index.keep_up_forever())
    for number in range(120):
        await store.commit(put(codec, record(1, name=f"n{number}")))
        while codec.decoded < 50 + number:
            await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.wait([keeping])
    await index.newest_first()
    assert codec.decoded <= 50 + 120, "all of it was read again"


async def test_a_bug_does_not_end_the_keeping_up(
    store: Store, codec: CountingCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.records.container_index._KEEP_UP", 0.0)
    index, changes, asked = ContainerIndex(store, codec, _PREFIX), store.changes, Counter[str]()

    async def broken_at_first(prefix: str, *, after: int) -> tuple[Sequence[Change], int] | None:
        asked[prefix] += 1
        if asked[prefix] == 1:
            raise ZeroDivisionError
        return await changes(prefix, after=after)

    monkeypatch.setattr(store, "changes", broken_at_first)
    await store.commit(put(codec, record(1)))
    keeping = asyncio.create_task(index.keep_up_forever())
    while codec.decoded == 0 and not keeping.done():
        await asyncio.sleep(0)
    assert not keeping.done()
    assert asked[_PREFIX] > 1
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_a_page_looks_at_none_but_its_own(store: Store, codec: CountingCodec) -> None:
    index = ContainerIndex(store, codec, _PREFIX)
    await store.commit(*(put(codec, record(number)) for number in range(100)))
    await index.newest_first()
    taken: list[str] = []

    class Records(dict[str, ContainerRecord]):
        def __getitem__(self, container_id: str) -> ContainerRecord:
            taken.append(container_id)
            return super().__getitem__(container_id)

    index._records = Records(index._records)
    found = list(await index.newest_first([{with_label("tier=t1")}], before=place_of(record(30))))
    assert [each.id for each in found] == taken == [f"{number:064x}" for number in range(29, 0, -4)]


async def test_a_load_that_is_cut_off_is_made_again(store: Store) -> None:
    containers = ContainerRepository(store, EventLog(store), NodeUsages(store))
    for number in range(3):
        await containers.add(record(number))

    listed = store.list

    async def cut_off(*arguments: object, **more: object) -> None:
        raise TimeoutError

    store.list = cut_off  # type: ignore[method-assign,assignment]  # of one call
    with pytest.raises(TimeoutError):
        await containers.newest_first()
    store.list = listed  # type: ignore[method-assign]
    assert [each.name for each in await containers.newest_first()] == ["c2", "c1", "c0"]
    await containers.update(record(1).id, lambda found: Changed(record=dataclasses.replace(found, name="other")))
    assert [each.name for each in await containers.newest_first()] == ["c2", "other", "c0"]
