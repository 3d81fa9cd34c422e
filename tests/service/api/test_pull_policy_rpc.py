"""What CreateContainer does about an image that is not here: the pull policies, and what ends a create that pulls."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import image_service_pb2 as image_pb2

from api_service.registries.endpoints import Registries
from api_service.registries.locations import Location
from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.fake_executor.images import archive, image_config

HOSTED = "127.0.0.1:5000/team/app:1"
MISSING, ALWAYS, NEVER = pb2.PULL_POLICY_MISSING, pb2.PULL_POLICY_ALWAYS, pb2.PULL_POLICY_NEVER
UNSPECIFIED = pb2.PULL_POLICY_UNSPECIFIED


def request(image: str, policy: pb2.PullPolicy.ValueType = UNSPECIFIED, **fields: object) -> pb2.CreateContainerRequest:
    config = container_pb2.ContainerConfig(image=image, cmd=["sleep"])
    return pb2.CreateContainerRequest(config=config, pull_policy=policy, **fields)  # type: ignore[arg-type]  # any field


async def nothing_left(api: Api) -> None:
    assert await api.names() == []
    assert api.executor.containers == {}
    assert api.engine.creating == set()


@pytest.mark.parametrize(
    ("image", "policy", "pulls"),
    [
        (HOSTED, UNSPECIFIED, 1),
        (HOSTED, MISSING, 1),
        (HOSTED, ALWAYS, 2),
        ("short", MISSING, 1),
        ("short", ALWAYS, 2),
    ],
)
async def test_absent_image_is_pulled(api: Api, image: str, policy: pb2.PullPolicy.ValueType, pulls: int) -> None:
    shown = image_pb2.RegistryCredentials(username="u", password="p")
    created = await api.containers.CreateContainer(request(image, policy, credentials=shown))
    again = await api.containers.CreateContainer(request(image, policy, credentials=shown))
    assert len(api.executor.pulls) == pulls
    given = api.executor.pulls[0].endpoints[0].credentials
    assert (given.username, given.password) == ("u", "p")
    listed = await api.images.ListImages(image_pb2.ListImagesRequest(reference=[image]))
    box = await api.inspect(created.id)
    assert [each.id for each in listed.images] == [box.image_id]
    assert box.config.image == image
    assert "image pull" in await api.actions()
    assert (await api.inspect(again.id)).image_id == box.image_id


@pytest.mark.parametrize(
    ("image", "policy", "says"),
    [
        ("short", UNSPECIFIED, "the name has no registry: set pull_policy to PULL_POLICY_MISSING"),
        ("short", NEVER, "PULL_POLICY_NEVER: ask for PULL_POLICY_MISSING"),
        (HOSTED, NEVER, "PULL_POLICY_NEVER: ask for PULL_POLICY_MISSING"),
        ("sha256:" + "a" * 64, MISSING, "pull it first"),
    ],
)
async def test_absent_image_that_is_not_pulled(
    api: Api, image: str, policy: pb2.PullPolicy.ValueType, says: str
) -> None:
    refusal = await refused(api.containers.CreateContainer(request(image, policy)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")
    assert says in refusal.message
    assert api.executor.pulls == []
    await nothing_left(api)


async def test_default_registry_configures_short_names(executor: FakeExecutor, tmp_path: Path) -> None:
    async with running_api(tmp_path, executor, registries=Registries(default=Location(domain="docker.io"))) as api:
        await api.containers.CreateContainer(request("short"))
    assert len(executor.pulls) == 1


async def test_image_of_another_platform_is_missing(api: Api) -> None:
    await api.load(archive([HOSTED], {**image_config(Cmd=["a"]), "architecture": "arm64"}))
    created = await api.containers.CreateContainer(request(HOSTED, MISSING, platform="linux/amd64"))
    assert (await api.inspect(created.id)).platform == "linux/amd64"
    assert api.executor.pulls[0].platform.architecture == "amd64"
    refusal = await refused(api.containers.CreateContainer(request("busybox", NEVER, platform="linux/arm64")))
    assert refusal.violations.keys() == {"platform"}


async def test_what_is_wrong_with_a_policy_comes_with_all_the_rest(api: Api) -> None:
    bad = request("sha256:" + "a" * 64, ALWAYS, name="!")
    refusal = await refused(api.containers.CreateContainer(bad))
    assert sorted(refusal.violations) == ["name", "pull_policy"]
    assert "an id names none" in refusal.violations["pull_policy"]
    assert (await refused(api.containers.CreateContainer(request("a", 9)))).violations.keys() == {"pull_policy"}  # type: ignore[arg-type]  # no value of the enum


async def test_pull_that_fails_keeps_its_reason_and_leaves_nothing(api: Api) -> None:
    refusal = await refused(api.containers.CreateContainer(request("127.0.0.1:5000/me/absent", name="web")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")
    assert refusal.message == "the registry does not have it"
    await nothing_left(api)
    assert await api.create(name="web")


async def test_client_that_leaves_and_deadline_end_the_pull(api: Api) -> None:
    call = api.containers.CreateContainer(request("127.0.0.1:5000/me/slow", name="web"))
    await api.executor.until(lambda: api.executor.streams == 1)
    call.cancel()
    await api.executor.until(lambda: api.executor.streams == 0)
    late = await refused(api.containers.CreateContainer(request("127.0.0.1:5000/me/slow", name="web"), timeout=0.3))
    assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await api.executor.until(lambda: api.executor.streams == 0)
    await nothing_left(api)


async def test_same_request_id_pulls_once_and_makes_one(api: Api) -> None:
    asked = request(HOSTED, ALWAYS, request_id="key")
    first, second = await asyncio.gather(*(api.containers.CreateContainer(asked) for _ in range(2)))
    assert first.id == second.id
    before = len(api.executor.pulls)
    assert (await api.containers.CreateContainer(asked)).id == first.id
    assert len(api.executor.pulls) == before
    assert len(await api.names()) == 1


@pytest.mark.parametrize("policy", [MISSING, NEVER])
async def test_removal_in_between_does_not_win_silently(api: Api, policy: pb2.PullPolicy.ValueType) -> None:
    await api.load(archive([HOSTED], image_config(Cmd=["loaded"])))
    create = api.executor.fault("CreateContainer", gate=asyncio.Event())
    call = api.containers.CreateContainer(request(HOSTED, policy, name="web"))
    await create.reached.wait()
    # What a removal that began before the create does on the node.
    api.executor.images.clear()
    assert create.gate is not None
    create.gate.set()
    if policy == NEVER:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")
        await nothing_left(api)
    else:
        assert (await api.inspect((await call).id)).name == "web"
        assert len(api.executor.pulls) == 1
