"""Copies, exports, changes and prunes of the API: streams, states, events, and what a client may say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from common.errors import Internal
from tests.fixtures.api import Api, refused


async def put(api: Api, *messages: pb2.CopyToContainerRequest) -> pb2.CopyToContainerResponse:
    async def requests() -> AsyncIterator[pb2.CopyToContainerRequest]:
        for message in messages:
            yield message

    return await api.containers.CopyToContainer(requests())


def target(container: str = "web", path: str = "/data", **more: bool) -> pb2.CopyToContainerRequest:
    return pb2.CopyToContainerRequest(target=pb2.CopyTarget(container=container, path=path, **more))


def chunk(data: bytes) -> pb2.CopyToContainerRequest:
    return pb2.CopyToContainerRequest(chunk=data)


async def get(api: Api, container: str, path: str) -> list[pb2.CopyFromContainerResponse]:
    call = api.containers.CopyFromContainer(pb2.CopyFromContainerRequest(container=container, path=path))
    return [answer async for answer in call]


async def prune(api: Api, **filters: object) -> pb2.PruneContainersResponse:
    request = pb2.PruneContainersRequest(**filters)  # type: ignore[arg-type]  # any filter
    return await api.containers.PruneContainers(request)


async def test_an_archive_goes_in_and_comes_out_as_it_was(api: Api) -> None:
    container = await api.create(name="web")
    archive = bytes(range(250))
    await put(api, target(no_overwrite_dir_non_dir=True, copy_uid_gid=True), chunk(archive[:100]), chunk(archive[100:]))
    (asked,) = api.executor.targets
    assert (asked.container_id, asked.no_overwrite_dir_non_dir, asked.copy_uid_gid) == (container, True, True)
    described, *chunks = await get(api, "web", "/data")
    assert (described.stat.name, described.stat.size, described.stat.mode) == ("data", 250, 0o100644)
    assert b"".join(each.chunk for each in chunks) == archive
    changes = (await api.containers.ListChanges(pb2.ListChangesRequest(container="web"))).changes
    assert [(change.path, change.kind) for change in changes] == [("/data", pb2.CHANGE_KIND_ADDED)]
    export = api.containers.ExportContainer(pb2.ExportContainerRequest(container="web"))
    assert b"".join([each.chunk async for each in export]) == b"the root"
    assert await api.actions(type=["container"]) == [
        f"container {action}" for action in ("create", "extract-to-dir", "archive-path", "export")
    ]


async def test_the_target_comes_first_and_once(api: Api) -> None:
    await api.create(name="web")
    for messages in ((), (chunk(b"x"),), (target(), chunk(b"x"), target())):
        refusal = await refused(put(api, *messages))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.violations.keys() == {"target"}


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("data", "absolute"), ("", "absolute"), ("/a\0b", "absolute"), ("/" + "ä" * 2048, "4096 bytes")],
)
async def test_a_path_is_absolute_and_bounded_in_bytes(api: Api, path: str, sentence: str) -> None:
    await api.create(name="web")
    for call, field in ((put(api, target(path=path)), "target.path"), (get(api, "web", path), "path")):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in refusal.violations[field]


async def test_one_that_is_going_has_no_files_any_more(api: Api) -> None:
    await api.create(name="web")
    api.executor.fault("RemoveContainer", error=Internal("the layer is busy"))
    await refused(api.remove("web"))
    for call in (
        put(api, target()),
        get(api, "web", "/"),
        api.containers.ListChanges(pb2.ListChangesRequest(container="web")),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONTAINER_GOING")
    assert (await refused(get(api, "nobody", "/"))).code is grpc.StatusCode.NOT_FOUND


async def test_what_the_node_refuses_arrives(api: Api) -> None:
    await api.create(name="web")
    refusal = await refused(get(api, "web", "/nothing"))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.resource is not None
    assert refusal.resource.resource_name == "/nothing"
    assert await api.actions(type=["container"]) == ["container create"]


async def test_prune_takes_what_does_not_run_and_what_the_filters_say(api: Api) -> None:
    made = {}
    for name, labels in (("a", {"batch": "1"}), ("b", {"batch": "1", "keep": ""}), ("c", {"batch": "2"}), ("d", {})):
        config = container_pb2.ContainerConfig(image="busybox", cmd=["sleep"], labels=labels)
        made[name] = (
            await api.containers.CreateContainer(pb2.CreateContainerRequest(name=f"{name}1", config=config))
        ).id
    await api.start("d1")
    pruned = await prune(api, label=["batch=1", "!keep"])
    assert (list(pruned.containers), pruned.space_reclaimed) == ([made["a"]], 2)
    assert list((await prune(api, until=Timestamp(seconds=1))).containers) == []
    assert list((await prune(api, label=["!batch=1"])).containers) == [made["c"]]
    assert list((await prune(api)).containers) == [made["b"]]
    assert await api.names() == ["d1"]
    prunes = [item.event for item in await api.events(14) if item.event.action == "prune"]
    assert [event.attributes["reclaimed"] for event in prunes] == ["2", "0", "2", "2"]


async def test_a_prune_leaves_what_cannot_be_removed_and_goes_on(api: Api) -> None:
    for name in ("a1", "b1"):
        await api.create(name=name)
    api.executor.fault("RemoveContainer", error=Internal("the layer is busy"))
    assert len((await prune(api)).containers) == 1
    assert len(await api.names()) == 1


async def test_one_prune_at_a_time(api: Api) -> None:
    await api.create(name="web")
    gate = asyncio.Event()
    fault = api.executor.fault("RemoveContainer", gate=gate)
    first = asyncio.ensure_future(prune(api))
    await fault.reached.wait()
    refusal = await refused(prune(api))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "PRUNE_RUNNING")
    gate.set()
    assert len((await first).containers) == 1
