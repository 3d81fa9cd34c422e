"""Lookups, lists, waits, logs and renames."""

from __future__ import annotations

import asyncio
import dataclasses

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2, health_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import image_service_pb2 as image_pb2

from api_service.records.container import ContainerRecord
from api_service.records.container_repository import Changed
from api_service.records.health import Health, HealthStatus
from api_service.records.mount import MountPoint, MountType
from tests.fixtures.api import Api, refused


async def listed(api: Api, *, all: bool = True, **filters: object) -> list[str]:
    request = pb2.ListContainersRequest(all=all, filters=pb2.ContainerFilters(**filters))  # type: ignore[arg-type]  # any filter
    return [container.name for container in (await api.containers.ListContainers(request)).containers]


async def test_id_then_name_then_prefix(api: Api) -> None:
    first = await api.create(name="one")
    await api.create(name=first[:12])
    assert (await api.inspect(first)).name == "one"
    assert (await api.inspect(first[:12])).name == first[:12]
    assert (await api.inspect(first[:13])).name == "one"


async def test_ambiguous_prefix_names_the_candidates(api: Api) -> None:
    ids = [await api.create(name=f"c{number}") for number in range(17)]
    digit = next(first for first in "0123456789abcdef" if sum(each.startswith(first) for each in ids) > 1)
    refusal = await refused(api.inspect(digit))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    for container_id in [each for each in ids if each.startswith(digit)][:10]:
        assert container_id[:12] in refusal.message


async def test_list_shows_what_runs_newest_first(api: Api) -> None:
    for name in ("aa", "bb", "cc"):
        await api.create(name=name)
    await api.start("bb")
    assert await listed(api, all=False) == ["bb"]
    assert await listed(api) == ["cc", "bb", "aa"]


async def test_filters(api: Api) -> None:
    ids = {}
    for name, labels in (("web-1", {"tier": "front"}), ("web-2", {"tier": "front", "x": ""}), ("db", {"tier": "back"})):
        config = container_pb2.ContainerConfig(image="busybox", cmd=["sleep"], labels=labels)
        answer = await api.containers.CreateContainer(pb2.CreateContainerRequest(name=name, config=config))
        ids[name] = answer.id
    await api.start("db")
    api.executor.exit(ids["db"], 4)
    await api.wait("db")
    image_id = (await api.inspect("db")).image_id
    assert await listed(api, name=["web"]) == ["web-2", "web-1"]
    assert await listed(api, name=["-1", "db"]) == ["db", "web-1"]
    assert await listed(api, id=[ids["db"][:20]]) == ["db"]
    assert await listed(api, label=["tier=front", "x"]) == ["web-2"]
    assert await listed(api, label=["tier=fro"]) == []
    assert await listed(api, all=False, exited=[4]) == ["db"]
    assert await listed(api, exited=[0]) == []
    assert await listed(api, all=False, status=[container_pb2.CONTAINER_STATUS_CREATED]) == ["web-2", "web-1"]
    for ancestor in ("busybox", "docker.io/library/busybox:latest", image_id, image_id[7:19]):
        assert len(await listed(api, ancestor=[ancestor])) == 3
    assert await listed(api, ancestor=["nginx"]) == []
    await api.images.TagImage(image_pb2.TagImageRequest(image="busybox", target="tools:2"))
    assert len(await listed(api, ancestor=["tools:2", "nginx"])) == 3
    assert await listed(api, ancestor=["tools"]) == []
    assert await listed(api, network=["bridge"], name=["db"]) == ["db"]
    assert await listed(api, network=["host"]) == []
    assert await listed(api, before="web-2") == ["web-1"]
    assert await listed(api, since="web-1") == ["db", "web-2"]
    assert (await refused(listed(api, since="nobody"))).code == grpc.StatusCode.NOT_FOUND


async def test_filters_by_health_and_by_what_is_mounted(api: Api) -> None:
    mounts = (
        MountPoint(type=MountType.VOLUME, source="data", destination="/var/data"),
        MountPoint(type=MountType.BIND, source="/srv", destination="/srv/"),
    )
    sick = await api.run(name="sick")
    await api.run(name="plain")

    def change(record: ContainerRecord) -> Changed:
        state = dataclasses.replace(record.state, health=Health(status=HealthStatus.UNHEALTHY))
        return Changed(record=dataclasses.replace(record, state=state, mount_points=mounts))

    await api.engine.containers.update(sick, change)
    assert await listed(api, health=[health_pb2.HEALTH_STATUS_UNHEALTHY]) == ["sick"]
    assert await listed(api, health=[health_pb2.HEALTH_STATUS_NONE]) == ["plain"]
    assert await listed(api, health=[health_pb2.HEALTH_STATUS_UNSPECIFIED]) == ["plain", "sick"]
    for volume in ("data", "/var/data/", "/srv"):
        assert await listed(api, volume=[volume]) == ["sick"]
    assert await listed(api, volume=["other"]) == []
    summary = (await api.containers.ListContainers(pb2.ListContainersRequest())).containers[1]
    assert (summary.health, list(summary.mounts)) == (health_pb2.HEALTH_STATUS_UNHEALTHY, ["data", "/srv"])


async def test_pages(api: Api) -> None:
    for number in range(5):
        await api.create(name=f"c{number}")
    pages, token = [], ""
    while True:
        answer = await api.containers.ListContainers(pb2.ListContainersRequest(all=True, page_size=2, page_token=token))
        pages.append([container.name for container in answer.containers])
        if not (token := answer.next_page_token):
            break
        if len(pages) == 1:
            await api.create(name="newer")  # moves no page
    assert pages == [["c4", "c3"], ["c2", "c1"], ["c0"]]


@pytest.mark.parametrize("token", ["x", "eA==", "ä"])
async def test_token_nobody_gave(api: Api, token: str) -> None:
    call = api.containers.ListContainers(pb2.ListContainersRequest(page_token=token))
    assert "page_token" in (await refused(call)).violations


async def test_status_text(api: Api) -> None:
    container_id = await api.run(name="web")
    request = pb2.ListContainersRequest(all=True)
    [summary] = (await api.containers.ListContainers(request)).containers
    assert summary.status.startswith(("Up Less than a second", "Up 1 second"))
    assert (summary.command, summary.image) == ("sleep", "busybox")
    api.executor.exit(container_id, 9)
    await api.wait("web")
    [summary] = (await api.containers.ListContainers(request)).containers
    assert summary.status.startswith("Exited (9) ")


async def waiting(api: Api, condition: pb2.WaitCondition.ValueType) -> asyncio.Future[pb2.WaitContainerResponse]:
    """A wait for `web` that has begun. A unary call shows headers with the answer only, a stream shows them at once."""
    method = api.channel.unary_stream(
        "/slipway.v1.ContainerService/WaitContainer",
        request_serializer=pb2.WaitContainerRequest.SerializeToString,
        response_deserializer=pb2.WaitContainerResponse.FromString,
    )
    call = method(pb2.WaitContainerRequest(container="web", condition=condition), timeout=60)
    await call.initial_metadata()
    return asyncio.ensure_future(anext(aiter(call)))


async def test_wait_goes_on_through_a_restart_by_policy(api: Api) -> None:
    container_id = await api.run(name="web")
    next_exit = await waiting(api, pb2.WAIT_CONDITION_NEXT_EXIT)
    ended = await waiting(api, pb2.WAIT_CONDITION_NOT_RUNNING)
    api.executor.exit(container_id, 3, restart_in=60)
    assert (await next_exit).exit_code == 3
    api.executor.restart(container_id)
    await api.followed()
    assert not ended.done()
    await api.stop("web")
    assert (await ended).exit_code == 143


async def test_wait_for_the_next_end(api: Api) -> None:
    container_id = await api.run(name="web")
    api.executor.exit(container_id, 1)
    await api.wait("web")
    call = await waiting(api, pb2.WAIT_CONDITION_NEXT_EXIT)
    await api.start("web")
    assert not call.done()
    api.executor.exit(container_id, 2)
    assert (await call).exit_code == 2


async def test_wait_of_what_never_ran(api: Api) -> None:
    await api.create(name="web")
    assert not (await api.wait("web")).HasField("exit_code")


async def test_removal_ends_every_wait(api: Api) -> None:
    await api.create(name="web")
    calls = [await waiting(api, condition) for condition in (pb2.WAIT_CONDITION_NEXT_EXIT, pb2.WAIT_CONDITION_REMOVED)]
    await api.remove("web")
    for call in calls:
        assert not (await call).HasField("exit_code")


async def test_wait_is_bounded_by_the_clients_deadline(api: Api) -> None:
    await api.run(name="web")
    call = api.containers.WaitContainer(pb2.WaitContainerRequest(container="web"), timeout=0.1)
    assert (await refused(call)).code == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_logs_follow_until_the_end(api: Api) -> None:
    container_id = await api.run(name="web")
    api.executor.write(container_id, b"one\n")
    call = api.containers.StreamLogs(pb2.StreamLogsRequest(container="web", follow=True))
    received = []
    async for answer in call:
        received += [line.data for line in answer.lines]
        if len(received) == 1:
            api.executor.write(container_id, b"two\n")
        else:
            api.executor.exit(container_id)
    assert received == [b"one\n", b"two\n"]


async def test_follower_that_vanishes_leaves_nothing(api: Api) -> None:
    container_id = await api.run(name="web")
    api.executor.write(container_id, b"one\n")
    call = api.containers.StreamLogs(pb2.StreamLogsRequest(container="web", follow=True))
    await call.read()
    assert api.executor.streams == 1
    call.cancel()
    await api.executor.until(lambda: api.executor.streams == 0)


async def test_slow_reader_of_logs_is_waited_for(api: Api) -> None:
    container_id = await api.run(name="web")
    for _ in range(200):
        api.executor.write(container_id, b"x" * 100_000)
    call = api.containers.StreamLogs(pb2.StreamLogsRequest(container="web"))
    read = 0
    async for _ in call:
        # What the client did not take yet is not in the API service's memory.
        assert read > 100 or api.executor.streams == 1
        read += 1
    assert read == 200


async def test_which_streams_and_how_many(api: Api) -> None:
    container_id = await api.run(name="web")
    for number in range(4):
        api.executor.write(container_id, f"{number}".encode(), stderr=number % 2 == 1)

    async def read(**options: object) -> list[bytes]:
        request = pb2.StreamLogsRequest(container="web", **options)  # type: ignore[arg-type]  # any option
        return [line.data async for answer in api.containers.StreamLogs(request) for line in answer.lines]

    assert await read(stdout=False) == [b"1", b"3"]
    assert await read(stderr=False) == [b"0", b"2"]
    assert await read(tail=1) == [b"3"]
    assert await read(tail=0) == []
    assert await read(since=Timestamp(seconds=1), until=Timestamp(seconds=1)) == [b"0", b"1", b"2", b"3"]
    refusal = await refused(read(stdout=False, stderr=False))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT


async def test_rename(api: Api) -> None:
    holder = await api.create(name="taken")
    await api.create(name="old")

    async def rename(new_name: str) -> None:
        await api.containers.RenameContainer(pb2.RenameContainerRequest(container="old", new_name=new_name))

    taken = await refused(rename("taken"))
    assert (taken.code, taken.resource and taken.resource.owner) == (grpc.StatusCode.ALREADY_EXISTS, holder)
    assert "new_name" in (await refused(rename("old"))).violations
    assert "new_name" in (await refused(rename("-"))).violations
    await rename("/new")
    assert sorted(await api.names()) == ["new", "taken"]
    assert await api.create(name="old")
    event = (await api.events(1, action=["rename"]))[0].event
    assert (event.attributes["oldName"], event.attributes["name"]) == ("old", "new")


async def test_renames_at_once_have_one_winner(api: Api) -> None:
    ids = [await api.create(name=f"c{number}") for number in range(10)]
    calls = [
        api.containers.RenameContainer(pb2.RenameContainerRequest(container=container_id, new_name="web"))
        for container_id in ids
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert sorted(await api.names()).count("web") == 1


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253402300800])
async def test_a_time_outside_the_calendar_is_refused_by_name(api: Api, seconds: int) -> None:
    call = api.containers.StreamLogs(pb2.StreamLogsRequest(container="web", since=Timestamp(seconds=seconds)))
    answer = await refused(anext(aiter(call)))
    assert answer.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(answer.violations) == {"since"}
