"""Records in the store: what one commit holds together, retries, lookups, events and their bound."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator

import pytest

from api_service.records.codec import Codec
from api_service.records.config import ContainerConfig, EndpointSettings, HostConfig, ImageConfig, NetworkingConfig
from api_service.records.container import (
    ContainerRecord,
    ContainerState,
    JournalPosition,
    ObservedEndpoint,
    ObservedNetwork,
    Phase,
)
from api_service.records.container_repository import Changed, ContainerRepository
from api_service.records.event import Event, EventCursor, EventType
from api_service.records.event_log import BEGINNING, EventLog, parse_cursor
from api_service.records.event_shapes import container_event
from api_service.records.image import ImageRecord
from api_service.records.image_repository import ImageRepository
from api_service.records.node_usage import NodeUsages
from api_service.store.memory_store import MemoryStore
from api_service.store.store import Delete, Entry, Put, RevisionConflict, Store
from common.errors import Internal, InvalidArgument, NotFound, ResourceExhausted


def record(container_id: str, name: str, *, request_id: str = "", phase: Phase = Phase.READY) -> ContainerRecord:
    return ContainerRecord(
        id=container_id,
        name=name,
        created_at=5,
        phase=phase,
        path="sh",
        args=("-c",),
        config=ContainerConfig(image="i", env=("A=1",), entrypoint=("sh",), labels={"a": "b"}, stop_timeout=-1),
        host_config=HostConfig(network_mode="bridge", annotations={"x": "y"}),
        networking_config=NetworkingConfig(endpoints={"bridge": EndpointSettings(aliases=("a",))}),
        image_id="sha256:1",
        node="local",
        platform="linux/amd64",
        request_id=request_id,
        state=ContainerState(running=True, exit_code=None, started_at=7),
        network=ObservedNetwork(endpoints=(ObservedEndpoint(network_id="bridge", network_name="bridge"),)),
        observed=JournalPosition(journal_id="j", sequence=3),
    )


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with MemoryStore() as store:
        yield store


@pytest.fixture
def events(store: Store) -> EventLog:
    return EventLog(store, limit=50)


@pytest.fixture
def containers(store: Store, events: EventLog) -> ContainerRepository:
    return ContainerRepository(store, events, NodeUsages(store))


A, B = "a" * 64, "ab" + "c" * 62


def test_record_survives_json() -> None:
    codec = Codec(ContainerRecord)
    whole = record(A, "web", request_id="k")
    stored = codec.decode(Entry(key="containers/a", value=codec.encode(whole), revision=4))
    assert stored.record == whole
    assert stored.revision == 4


def test_what_has_its_default_is_not_written_and_may_be() -> None:
    codec, whole = Codec(ContainerRecord), record(A, "web")
    written = json.loads(codec.encode(whole))
    assert "remove_volumes" not in written
    assert "privileged" not in written["host_config"]
    assert written["state"] == {"running": True, "started_at": 7}
    value = json.dumps(dataclasses.asdict(whole)).encode()
    assert codec.decode(Entry(key="containers/a", value=value, revision=1)).record == whole


def test_field_of_a_newer_version_is_left_out() -> None:
    codec = Codec(JournalPosition)
    value = b'{"journal_id": "j", "sequence": 1, "colour": "red"}'
    assert codec.decode(Entry(key="k", value=value, revision=1)).record == JournalPosition(journal_id="j", sequence=1)


def test_value_that_is_no_record() -> None:
    with pytest.raises(Internal, match="the stored record k cannot be read"):
        Codec(JournalPosition).decode(Entry(key="k", value=b"[]", revision=1))


def test_what_was_decoded_is_kept_until_it_changes() -> None:
    codec = Codec(JournalPosition)
    entry = Entry(key="k", value=codec.encode(JournalPosition(sequence=1)), revision=1)
    assert codec.decode(entry) is codec.decode(entry)
    changed = Entry(key="k", value=codec.encode(JournalPosition(sequence=2)), revision=2)
    assert codec.decode(changed).record.sequence == 2


async def test_what_was_written_is_not_decoded_when_it_is_read(containers: ContainerRepository) -> None:
    made = record(A, "web")
    await containers.add(made)
    first = await containers.get(A)
    assert first is not None
    assert first.record is made
    changed = await containers.update(A, lambda found: Changed(record=dataclasses.replace(found, path="true")))
    second = await containers.get(A)
    assert second is not None
    assert second.record is changed
    assert second.revision > first.revision


async def test_what_another_process_wrote_since_is_decoded(containers: ContainerRepository, store: Store) -> None:
    await containers.add(record(A, "web"))
    other = dataclasses.replace(record(A, "web"), path="true")
    await store.commit(Put(key=f"containers/{A}", value=Codec(ContainerRecord).encode(other)))
    stored = await containers.get(A)
    assert stored is not None
    assert stored.record == other


async def test_name_and_request_are_held_once(containers: ContainerRepository) -> None:
    await containers.add(record(A, "web", request_id="k"))
    with pytest.raises(RevisionConflict) as named:
        await containers.add(record(B, "web"))
    assert containers.held_name(named.value) == A
    with pytest.raises(RevisionConflict) as asked:
        await containers.add(record(B, "db", request_id="k"))
    assert containers.held_request(asked.value)
    assert await containers.get(B) is None
    await containers.delete(A)
    await containers.add(record(B, "web", request_id="k"))
    assert await containers.id_of_request("k") == B


async def test_lookup(containers: ContainerRepository) -> None:
    await containers.add(record(A, "web"))
    await containers.add(record(B, "aaaa"))
    assert (await containers.find(A)).id == A
    assert (await containers.find("/web")).id == A
    assert (await containers.find("aaaa")).id == B  # a name before a prefix
    assert (await containers.find("aaaaa")).id == A
    with pytest.raises(InvalidArgument, match=r"beginning of several ids: .*\(web\), .*\(aaaa\)"):
        await containers.find("a")
    for nobody in ("x", "", "\0", "A", A + "a", "containers/"):
        with pytest.raises(NotFound):
            await containers.find(nobody)


async def test_container_being_created_is_not_shown(containers: ContainerRepository) -> None:
    await containers.add(record(A, "web", phase=Phase.CREATING))
    assert await containers.all() == []
    for reference in (A, "web", "aaaa"):
        with pytest.raises(NotFound):
            await containers.find(reference)


async def test_changes_at_once_are_all_made(containers: ContainerRepository, events: EventLog) -> None:
    await containers.add(record(A, "web"))

    def count(found: ContainerRecord) -> Changed:
        moved = dataclasses.replace(found, created_at=found.created_at + 1)
        return Changed(record=moved, events=[container_event(moved, f"step-{moved.created_at}", 1)])

    await asyncio.gather(*(containers.update(A, count) for _ in range(20)))
    assert (await containers.find(A)).created_at == 25
    told = [event.action for _, event in await kept(events)]
    assert told == [f"step-{number}" for number in range(6, 26)]


async def kept(events: EventLog) -> list[tuple[EventCursor, Event]]:
    return [item async for item in events.kept(after=BEGINNING)]


def event(action: str, time: int = 1) -> Event:
    return Event(type=EventType.CONTAINER, action=action, actor_id="a", time=time)


async def test_events_of_one_commit_have_places_of_their_own(store: Store, events: EventLog) -> None:
    await store.commit(*events.puts([event("one"), event("two"), event("three")]))
    found = await kept(events)
    followed = events.after(BEGINNING)
    assert [await anext(followed) for _ in range(3)] == found
    middle = events.after(found[1][0])
    assert await anext(middle) == found[2]
    assert [str(place) for place, _ in found] == ["1.0", "1.1", "1.2"]
    assert [parse_cursor(str(place)) for place, _ in found] == [place for place, _ in found]


async def test_places_count_through_all_sources_of_a_commit(containers: ContainerRepository, events: EventLog) -> None:
    await containers.add(record(A, "web"))
    told = {"j.10": [event("z", 9), event("y", 8)], "j.9": [event("x", 1)], "j.8": [event("w", 2)]}
    await containers.update(A, lambda found: Changed(record=found, sourced=told))
    found = await kept(events)
    assert [each.action for _, each in found] == ["z", "y", "x", "w"]
    followed = events.after(BEGINNING)
    assert [await anext(followed) for _ in found] == found
    for number, (place, _) in enumerate(found[:-1]):
        assert [item async for item in events.kept(after=place)] == found[number + 1 :]
        assert await anext(events.after(place)) == found[number + 1]
    recent = [item async for item in events.kept(after=BEGINNING, since=8)]
    assert recent == found[:2]


async def test_events_of_one_source_are_written_once(events: EventLog) -> None:
    await asyncio.gather(*(events.add_missing([event("one"), event("two")], source="j.1") for _ in range(5)))
    assert [found.action for _, found in await kept(events)] == ["one", "two"]


async def test_since_is_by_time_and_order_by_happening(events: EventLog) -> None:
    for action, time in (("late", 30), ("early", 10), ("middle", 20)):
        await events.add(event(action, time))
    since = events.since(20)
    assert [(await anext(since))[1].action for _ in range(2)] == ["late", "middle"]
    await events.add(event("next", 5))
    assert (await anext(since))[1].action == "next"


async def test_oldest_events_are_trimmed(events: EventLog) -> None:
    trimming = asyncio.create_task(events.trim_forever())
    for number in range(400):
        await events.add(event(f"{number}", number))
        await asyncio.sleep(0)
    found = await kept(events)
    assert 50 <= len(found) <= 151
    assert found[-1][1].action == "399"
    trimming.cancel()
    await asyncio.wait([trimming])


async def test_trimmed_is_what_happened_first_whatever_the_clocks_said(store: Store) -> None:
    log = EventLog(store, limit=4)
    for number in range(10):
        await log.add(event(f"ahead {number}", 1000 + number))
    for number in range(3):
        await log.add(event(f"behind {number}", number))
    changes = store.watch("events/", after=await store.revision())
    trimming = asyncio.create_task(log.trim_forever())
    async with asyncio.timeout(60):
        await anext(changes)
    assert [found.action for _, found in await kept(log)] == ["ahead 9", "behind 0", "behind 1", "behind 2"]
    trimming.cancel()
    await asyncio.wait([trimming])


async def test_events_are_bounded_by_bytes(store: Store) -> None:
    log = EventLog(store, max_bytes=10_000)
    trimming = asyncio.create_task(log.trim_forever())
    for number in range(100):
        await log.add(dataclasses.replace(event(f"{number}", number), labels={"k": "v" * 1000}))
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    held = await store.list("events/")
    assert 5000 < sum(len(entry.key) + len(entry.value) for entry in held) <= 12_500
    assert (await kept(log))[-1][1].action == "99"
    trimming.cancel()
    await asyncio.wait([trimming])


async def test_labels_are_stored_once(store: Store, events: EventLog) -> None:
    await events.add(container_event(dataclasses.replace(record(A, "web"), args=()), "start", 1))
    [entry] = await store.list("events/")
    assert entry.value.count(b'"a":"b"') == 1
    [(_, found)] = await kept(events)
    assert found.attributes == {"a": "b", "image": "i", "name": "web"}


async def test_trimming_outlives_a_write_that_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(store, limit=5, retry=0.001)
    await log.add(*(event(f"{number}", number) for number in range(20)))
    commit, failed = store.commit, asyncio.Event()

    async def commit_later(*operations: Put | Delete) -> int:
        if not failed.is_set():
            failed.set()
            raise ResourceExhausted("the disk is full")
        return await commit(*operations)

    monkeypatch.setattr(store, "commit", commit_later)
    changes = store.watch("events/", after=await store.revision())
    trimming = asyncio.create_task(log.trim_forever())
    async with asyncio.timeout(60):
        assert (await anext(changes)).value is None
    assert failed.is_set()
    assert len(await kept(log)) == 5
    trimming.cancel()
    await asyncio.wait([trimming])


async def test_cursor_ends_between_events_that_were_trimmed(store: Store) -> None:
    async with MemoryStore(history_limit=3) as small:
        log = EventLog(small)
        for number in range(10):
            await log.add(event(f"{number}"))
        with pytest.raises(Exception, match="no longer kept"):
            await anext(log.after(EventCursor(revision=2, index=0)))


IMAGE = ImageRecord(
    id="sha256:" + "1" * 64, names=("a:1",), config=ImageConfig(), size=1, created=None, architecture="amd64",
    os="linux", layers=(), nodes=("local",),
)  # fmt: skip


async def test_a_name_is_one_images(store: Store, events: EventLog) -> None:
    images = ImageRepository(store, events)
    other = dataclasses.replace(IMAGE, id="sha256:" + "2" * 64, names=("a:1", "b:1"))
    await images.add(IMAGE, [])
    await images.add(other, [])
    assert (await images.named("a:1")) == other
    held = await images.get(IMAGE.id)
    assert held is not None
    assert held.names == ()


async def test_adopted_image_takes_nobodys_name(store: Store, events: EventLog) -> None:
    images = ImageRepository(store, events)
    await images.add(IMAGE, [])
    await images.adopt(dataclasses.replace(IMAGE, id="sha256:" + "2" * 64, names=("a:1", "b:1")))
    assert (await images.named("a:1")) == IMAGE
    adopted = await images.named("b:1")
    assert adopted is not None
    assert adopted.names == ("b:1",)


async def test_beginning_of_several_image_ids(store: Store, events: EventLog) -> None:
    images = ImageRepository(store, events)
    for digits in ("abcd1", "abcd2"):
        await images.add(dataclasses.replace(IMAGE, id=f"sha256:{digits:0<64}", names=()), [])
    with pytest.raises(InvalidArgument, match="beginning of several image ids") as caught:
        await images.with_prefix("abcd")
    assert caught.value.reason == "AMBIGUOUS_IMAGE"
    assert await images.with_prefix("abcd2") is not None
    assert await images.with_prefix("ffff") is None


async def test_newest_come_first_whoever_comes_and_goes(containers: ContainerRepository, store: Store) -> None:
    async def newest() -> list[str]:
        return [found.name for found in await containers.newest_first()]

    ids = [f"{number:064x}" for number in range(4)]
    times = {"first": 5, "second": 9, "third": 7, "fourth": 9}
    for container_id, (name, time) in zip(ids, times.items(), strict=True):
        await containers.add(dataclasses.replace(record(container_id, name), created_at=time, phase=Phase.READY))
    assert await newest() == ["fourth", "second", "third", "first"]
    await containers.delete(ids[3])
    assert await newest() == ["second", "third", "first"]
    await containers.update(ids[0], lambda found: Changed(record=dataclasses.replace(found, phase=Phase.CREATING)))
    assert await newest() == ["second", "third"]
    await store.commit(Put(key="containers/" + "f" * 64, value=b"no record"))
    assert await newest() == ["second", "third"]
