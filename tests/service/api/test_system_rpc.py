"""SystemService: versions, counts, disk usage, and the stream of events."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import system_service_pb2 as pb2

from tests.fixtures.api import Api, refused


async def test_version(api: Api) -> None:
    version = await api.system.GetVersion(pb2.GetVersionRequest())
    assert (version.version, version.api_version) == ("0.1.0", "slipway.v1")
    [node] = version.nodes
    assert (node.node, node.version, node.kernel_version, node.available) == ("local", "0.1.0", "6.1.0", True)


async def test_info(api: Api) -> None:
    await api.create()
    await api.run()
    info = await api.system.GetInfo(pb2.GetInfoRequest())
    assert (info.containers, info.containers_running, info.containers_stopped, info.images) == (2, 1, 1, 1)
    [node] = info.nodes
    assert (node.name, node.available, node.cpus, list(node.runtimes)) == ("local", True, 2, ["crun", "runc"])


async def test_disk_usage(api: Api) -> None:
    usage = await api.system.GetDiskUsage(pb2.GetDiskUsageRequest())
    assert (usage.images_size, usage.containers_size, usage.logs_size) == (3, 2, 1)


async def test_cursor_goes_on_where_it_was(api: Api) -> None:
    await api.run(name="web")
    await api.stop("web")
    whole = await api.events(8)
    for place, item in enumerate(whole[:-1]):
        rest = await api.events(len(whole) - place - 1, cursor=item.cursor)
        assert [each.cursor for each in rest] == [each.cursor for each in whole[place + 1 :]]
    assert len({item.cursor for item in whole}) == len(whole)


async def test_from_now_on(api: Api) -> None:
    await api.create(name="before")
    call = api.system.StreamEvents(pb2.StreamEventsRequest(), timeout=60)
    await call.initial_metadata()
    await api.create(name="after")
    async for item in call:
        assert item.event.attributes["name"] == "after"
        break
    call.cancel()


async def test_until_a_time_to_come(api: Api) -> None:
    until = Timestamp()
    until.FromNanoseconds(api.engine.clock() + 300_000_000)
    call = api.system.StreamEvents(pb2.StreamEventsRequest(until=until), timeout=60)
    await call.initial_metadata()
    await api.create(name="web")
    assert [item.event.action async for item in call] == ["create"]


async def test_since_and_until(api: Api) -> None:
    await api.create(name="one")
    between = Timestamp()
    between.FromNanoseconds(api.engine.clock())
    await api.create(name="two")

    async def names(**query: object) -> list[str]:
        request = pb2.StreamEventsRequest(type=["container"], **query)  # type: ignore[arg-type]  # any query
        return [item.event.attributes["name"] async for item in api.system.StreamEvents(request, timeout=60)]

    now = Timestamp()
    now.FromNanoseconds(api.engine.clock())
    assert await names(since=Timestamp(), until=between) == ["one"]
    assert await names(since=between, until=now) == ["two"]
    assert await names(since=Timestamp(), until=now) == ["one", "two"]
    assert await names(since=now, until=now) == []


async def test_filters(api: Api) -> None:
    container_id = await api.run(name="web")
    await api.create(name="db")
    assert await api.actions(container=["web"]) == ["container create", "container start"]
    assert await api.actions(container=[container_id[:12]]) == [
        "container create", "network connect", "container start",
    ]  # fmt: skip
    assert await api.actions(container=["nobody", "db"]) == ["container create"]
    assert await api.actions(type=["network", "image"]) == ["image load", "network connect"]
    assert await api.actions(label=["k"]) == []


@pytest.mark.parametrize("cursor", ["x", "1", "1.x", "-1.0", "1.0.0"])
async def test_what_is_no_cursor(api: Api, cursor: str) -> None:
    refusal = await refused(anext(aiter(api.system.StreamEvents(pb2.StreamEventsRequest(cursor=cursor)))))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "cursor" in refusal.violations


async def test_cursor_of_another_store(api: Api) -> None:
    refusal = await refused(anext(aiter(api.system.StreamEvents(pb2.StreamEventsRequest(cursor="999999.0")))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_GONE")
