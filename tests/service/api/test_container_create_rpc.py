"""CreateContainer: every fault class, the name, the request id, and nothing left of what was not finished."""

from __future__ import annotations

import asyncio
import re

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from api_service.conversion.container import create_request_from_proto
from api_service.deadline import Deadline
from api_service.operations.container_create import create_container
from api_service.store.store import Delete, Put
from common.errors import Internal, ResourceExhausted
from tests.fixtures.api import Api, refused
from tests.fixtures.fake_executor.images import archive, image_config


def request(**fields: object) -> pb2.CreateContainerRequest:
    config = container_pb2.ContainerConfig(image="busybox", cmd=["sleep"])
    return pb2.CreateContainerRequest(**{"config": config, **fields})  # type: ignore[arg-type]  # any field


async def nothing_left(api: Api, name: str) -> None:
    """No record, no name, no container on the node: the name can be had again."""
    assert await api.names() == []
    assert api.executor.containers == {}
    assert await api.create(name=name)


async def test_rules_of_the_protocol_and_of_the_code_come_together(api: Api) -> None:
    bad = request(
        name="!",
        config=container_pb2.ContainerConfig(image="", env=["=x"], stop_signal="SIGNOPE", exposed_ports=["x"]),
        host_config=container_pb2.HostConfig(shm_size=-1, runtime="kata", network_mode="my net"),
    )
    refusal = await refused(api.containers.CreateContainer(bad))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(refusal.violations) == [
        "config.env[0]",
        "config.exposed_ports[0]",
        "config.image",
        "config.stop_signal",
        "host_config.network_mode",
        "host_config.runtime",
        "host_config.shm_size",
        "name",
    ]
    assert "'crun', 'runc'" in refusal.violations["host_config.runtime"]


async def test_no_config(api: Api) -> None:
    refusal = await refused(api.containers.CreateContainer(pb2.CreateContainerRequest()))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "config" in refusal.violations


async def test_image_that_is_not_there(api: Api) -> None:
    refusal = await refused(api.create(name="web", image="nginx:1"))
    assert refusal.code == grpc.StatusCode.NOT_FOUND
    assert refusal.message.startswith("No such image: nginx:1; it was not pulled because the name has no registry")
    assert refusal.resource is not None
    assert (refusal.resource.resource_type, refusal.resource.resource_name) == ("image", "nginx:1")


async def test_no_command_anywhere(api: Api) -> None:
    await api.load(archive(["empty:latest"], image_config()))
    refusal = await refused(
        api.containers.CreateContainer(request(config=container_pb2.ContainerConfig(image="empty")))
    )
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "no command" in refusal.violations["config.cmd"]


async def test_images_own_configuration_is_held_to_the_rules_of_the_protocol(api: Api) -> None:
    await api.load(archive(["evil:latest"], image_config(Cmd=["a\0b"], WorkingDir="/proc/self/fd/8")))
    refusal = await refused(api.create(image="evil"))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "IMAGE_CONFIG_INVALID"
    assert "config.working_dir" in refusal.message
    assert "config.cmd[0]" in (await refused(api.containers.CreateContainer(
        request(config=container_pb2.ContainerConfig(image="evil", working_dir="/"))
    ))).message  # fmt: skip


@pytest.mark.parametrize(
    ("platform", "fine"),
    [
        ("", True),
        ("linux", True),
        ("linux/amd64", True),
        ("linux/x86_64", True),
        ("linux/arm64", False),
        ("a/b/c", False),
    ],
)
async def test_platform(api: Api, platform: str, fine: bool) -> None:
    call = api.containers.CreateContainer(request(platform=platform))
    if fine:
        assert (await api.inspect((await call).id)).platform == "linux/amd64"
    else:
        refusal = await refused(call)
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert "platform" in refusal.violations


async def test_merge_with_the_image_and_what_the_node_is_told(api: Api) -> None:
    await api.load(
        archive(["app:1"], image_config(Entrypoint=["/app"], Cmd=["serve"], Env=["A=image", "B=2"], User="app"))
    )
    answer = await api.containers.CreateContainer(
        request(
            config=container_pb2.ContainerConfig(image="app:1", env=["A=mine"], labels={"k": "v"}, tty=True),
            host_config=container_pb2.HostConfig(
                extra_hosts=["db:10.0.0.5"],
                log_config=container_pb2.LogConfig(config={"max-size": "1m", "max-file": "2"}),
            ),
        )
    )
    container = await api.inspect(answer.id)
    assert (container.path, list(container.args)) == ("/app", ["serve"])
    spec = api.executor.containers[answer.id].spec
    assert list(spec.args) == ["/app", "serve"]
    assert {"A=mine", "B=2", "TERM=xterm", f"HOSTNAME={answer.id[:12]}"} <= set(spec.env)
    assert (spec.user, spec.working_dir, spec.hostname, spec.terminal) == ("app", "/", answer.id[:12], True)
    assert (spec.log_max_size, spec.log_max_files, spec.shm_size) == (1_000_000, 2, 64 * 1024 * 1024)
    assert [(host.name, host.address) for host in spec.extra_hosts] == [("db", "10.0.0.5")]
    assert spec.runtime == "crun"


async def test_warnings(api: Api) -> None:
    answer = await api.containers.CreateContainer(
        request(
            config=container_pb2.ContainerConfig(image="busybox", cmd=["x"], exposed_ports=["80"]),
            host_config=container_pb2.HostConfig(network_mode="host"),
        )
    )
    assert any("exposed_ports" in warning for warning in answer.warnings)
    assert (await api.inspect(answer.id)).config.hostname == "fake-host"


async def test_generated_name(api: Api) -> None:
    container = await api.inspect(await api.create())
    assert re.fullmatch(r"[a-z]+_[a-z]+[0-9]?", container.name)


async def test_name_in_use_names_its_holder(api: Api) -> None:
    holder = await api.create(name="web")
    refusal = await refused(api.create(name="/web"))
    assert refusal.code == grpc.StatusCode.ALREADY_EXISTS
    assert refusal.message.startswith("Conflict. The container name 'web' is already in use")
    assert refusal.resource is not None
    assert refusal.resource.owner == holder
    assert len(api.executor.containers) == 1


async def test_fifty_creates_of_one_name_have_one_winner(api: Api) -> None:
    outcomes = await asyncio.gather(*(api.create(name="web") for _ in range(50)), return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, str)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(winners) == 1
    assert {error.code() for error in losers} == {grpc.StatusCode.ALREADY_EXISTS}
    assert len(losers) == 49
    assert list(api.executor.containers) == winners
    assert await api.actions(action=["create"]) == ["container create"]


@pytest.mark.parametrize("error", [ResourceExhausted("the disk is full"), Internal("mount failed")])
async def test_failure_on_the_node_leaves_nothing(api: Api, error: Exception) -> None:
    api.executor.fault("CreateContainer", error=error)
    refusal = await refused(api.create(name="web"))
    assert refusal.message == str(error)
    await nothing_left(api, "web")


async def test_lost_answer_leaves_nothing(api: Api) -> None:
    api.executor.fault("CreateContainer", lost=True)
    assert (await refused(api.create(name="web"))).code == grpc.StatusCode.UNAVAILABLE
    await nothing_left(api, "web")


async def test_client_that_vanishes_leaves_nothing(api: Api) -> None:
    gate = asyncio.Event()
    fault = api.executor.fault("CreateContainer", gate=gate)
    call = api.containers.CreateContainer(request(name="web"))
    await fault.reached.wait()
    assert (await refused(api.create(name="web"))).code == grpc.StatusCode.ALREADY_EXISTS
    assert await api.names() == []  # not shown before it is ready
    [draft] = api.engine.creating
    call.cancel()
    await api.gone(draft)
    gate.set()
    await nothing_left(api, "web")


async def test_client_that_vanishes_while_the_record_is_written(api: Api) -> None:
    """A commit under way cannot be called back: the undo waits for it."""
    store, begun, go_on = api.engine.containers._store, asyncio.Event(), asyncio.Event()
    commit = store.commit

    async def slow(*operations: Put | Delete) -> int:
        begun.set()
        await go_on.wait()
        return await commit(*operations)

    async def durable(*operations: Put | Delete) -> int:
        return await asyncio.shield(asyncio.ensure_future(slow(*operations)))

    store.commit = durable  # type: ignore[method-assign]  # the store's writer, made slow
    asked = create_request_from_proto(request(name="web"), ())
    create = asyncio.create_task(create_container(api.engine, asked, deadline=Deadline.after(60)))
    await begun.wait()
    [draft] = api.engine.creating
    create.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([create])
    assert create.cancelled()
    assert await api.engine.containers.get(draft) is None
    store.commit = commit  # type: ignore[method-assign]  # as it was
    await nothing_left(api, "web")


async def test_deadline_leaves_nothing(api: Api) -> None:
    fault = api.executor.fault("CreateContainer", gate=asyncio.Event())
    call = api.containers.CreateContainer(request(name="web"), timeout=3)
    await fault.reached.wait()
    [draft] = api.engine.creating
    assert (await refused(call)).code == grpc.StatusCode.DEADLINE_EXCEEDED
    await api.gone(draft)
    await nothing_left(api, "web")


async def test_same_request_id_same_container(api: Api) -> None:
    first = await api.containers.CreateContainer(request(name="web", request_id="key/1\0ä"))
    again = await api.containers.CreateContainer(request(name="web", request_id="key/1\0ä"))
    other = await api.containers.CreateContainer(request(request_id="key/2"))
    assert again.id == first.id
    assert other.id != first.id
    assert api.executor.calls.count("CreateContainer") == 2


async def test_request_id_is_released_with_its_container(api: Api) -> None:
    first = await api.containers.CreateContainer(request(request_id="k"))
    await api.remove(first.id)
    assert (await api.containers.CreateContainer(request(request_id="k"))).id != first.id


async def test_repeated_while_the_first_is_under_way(api: Api) -> None:
    gate = asyncio.Event()
    fault = api.executor.fault("CreateContainer", gate=gate)
    first = api.containers.CreateContainer(request(name="web", request_id="k"))
    await fault.reached.wait()
    again = [api.containers.CreateContainer(request(name="web", request_id="k")) for _ in range(5)]
    gate.set()
    ids = {answer.id for answer in await asyncio.gather(first, *again)}
    assert len(ids) == 1
    assert len(api.executor.containers) == 1


async def test_repeated_after_the_first_failed(api: Api) -> None:
    gate = asyncio.Event()
    fault = api.executor.fault("CreateContainer", gate=gate, error=Internal("mount failed"))
    first = api.containers.CreateContainer(request(name="web", request_id="k"))
    await fault.reached.wait()
    again = api.containers.CreateContainer(request(name="web", request_id="k"))
    gate.set()
    assert (await refused(first)).code == grpc.StatusCode.INTERNAL
    made = await again
    assert list(api.executor.containers) == [made.id]


async def test_repeated_after_a_lost_answer(api: Api) -> None:
    api.executor.fault("CreateContainer", lost=True)
    assert (await refused(api.containers.CreateContainer(request(request_id="k")))).retry_after is not None
    made = await api.containers.CreateContainer(request(request_id="k"))
    assert list(api.executor.containers) == [made.id]
