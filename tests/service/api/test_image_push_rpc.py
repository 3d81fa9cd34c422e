"""Pushes through the API: which registry gets which image, as whom, and what is known of it afterwards."""

from __future__ import annotations

import grpc
from slipway.v1 import image_service_pb2 as pb2

from common.errors import Unauthenticated
from tests.fixtures.api import Api, refused

DIGEST = "sha256:" + "4" * 64


async def push(api: Api, image: str, **fields: object) -> list[pb2.PushImageResponse]:
    request = pb2.PushImageRequest(image=image, **fields)  # type: ignore[arg-type]  # any field
    return [answer async for answer in api.images.PushImage(request)]


async def named(api: Api, target: str) -> None:
    await api.images.TagImage(pb2.TagImageRequest(image="busybox", target=target))


async def test_an_image_goes_to_the_registry_of_its_name(api: Api) -> None:
    await named(api, "reg.test:5000/team/app:1.4")
    progress, last = await push(
        api, "reg.test:5000/team/app:1.4", credentials=pb2.RegistryCredentials(username="u", password="p")
    )
    assert (progress.progress.phase, progress.progress.done) == (pb2.LAYER_PHASE_UPLOADING, 5)
    assert last.image.digest == DIGEST
    [asked] = api.executor.pushes
    assert (asked.endpoint.host, asked.endpoint.repository, asked.tag) == ("reg.test:5000", "team/app", "1.4")
    assert (asked.endpoint.credentials.username, asked.endpoint.credentials.password) == ("u", "p")
    image = (await api.images.InspectImage(pb2.InspectImageRequest(image=f"reg.test:5000/team/app@{DIGEST}"))).image
    assert asked.image_id == image.id
    assert "reg.test:5000/team/app:1.4" in image.repo_tags
    assert "image push" in await api.actions()


async def test_what_cannot_be_pushed_is_told(api: Api) -> None:
    missing = await refused(push(api, "reg.test/nothing"))
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")
    image = (await api.images.InspectImage(pb2.InspectImageRequest(image="busybox"))).image
    assert "image" in (await refused(push(api, image.id))).violations
    digest = await refused(push(api, f"reg.test/app@{DIGEST}"))
    assert "give a name with a tag" in digest.violations["image"]
    assert api.executor.pushes == []


async def test_a_push_that_failed_is_not_recorded(api: Api) -> None:
    await named(api, "reg.test/app")
    api.executor.fault("PushImage", error=Unauthenticated("no login", reason="REGISTRY_LOGIN_REFUSED"))
    refusal = await refused(push(api, "reg.test/app"))
    assert refusal.reason == "REGISTRY_LOGIN_REFUSED"
    image = (await api.images.InspectImage(pb2.InspectImageRequest(image="reg.test/app"))).image
    assert list(image.repo_digests) == []
    assert "image push" not in await api.actions()
