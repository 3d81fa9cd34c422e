"""PullImage of the API service: what the node is asked for, and what becomes of the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from slipway.v1 import image_service_pb2 as pb2

from tests.fixtures.api import Api, refused

DIGEST = "sha256:" + "a" * 64


async def pull(api: Api, reference: str, **fields: object) -> list[pb2.PullImageResponse]:
    request = pb2.PullImageRequest(reference=reference, **fields)  # type: ignore[arg-type]  # any field
    return [answer async for answer in api.images.PullImage(request, timeout=60)]


async def test_pull_is_recorded_named_and_told(api: Api) -> None:
    shown = pb2.RegistryCredentials(username="u", password="p", identity_token="i", registry_token="r")
    progress, last = await pull(api, "app:2", platform="linux/aarch64/v8", credentials=shown, node="local")
    assert progress.progress == pb2.LayerProgress(
        digest="sha256:" + "2" * 64, phase=pb2.LAYER_PHASE_DOWNLOADING, done=5, total=10, retries=1
    )
    assert last.image.digest == "sha256:" + "3" * 64
    assert list(last.image.image.repo_tags) == ["app:2"]
    assert list(last.image.image.config.cmd) == ["pulled"]
    (asked,) = api.executor.pulls
    (endpoint,) = asked.endpoints
    assert (endpoint.host, endpoint.repository, endpoint.plain_http) == ("registry-1.docker.io", "library/app", False)
    assert (asked.reference, asked.name) == ("2", "app:2")
    assert (asked.platform.os, asked.platform.architecture, asked.platform.variant) == ("linux", "arm64", "v8")
    given = endpoint.credentials
    assert (given.username, given.password, given.identity_token, given.registry_token) == ("u", "p", "i", "r")
    inspected = await api.images.InspectImage(pb2.InspectImageRequest(image="app:2"))
    assert inspected.image == last.image.image
    events = [each.event for each in await api.events(2)]
    assert [(each.action, dict(each.attributes)["name"]) for each in events[-1:]] == [("pull", "app:2")]


async def test_pull_by_digest_gives_no_name(api: Api) -> None:
    answers = await pull(api, f"127.0.0.1:5000/app:1@{DIGEST}")
    assert list(answers[-1].image.image.repo_tags) == []
    (asked,) = api.executor.pulls
    assert (asked.reference, asked.name) == (DIGEST, "")
    assert (asked.endpoints[0].host, asked.endpoints[0].plain_http) == ("127.0.0.1:5000", True)
    assert (asked.platform.os, asked.platform.architecture) == ("linux", "")


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("reference", {"reference": "UPPER"}),
        ("reference", {"reference": ""}),
        ("platform", {"reference": "app", "platform": "windows/amd64"}),
        ("platform", {"reference": "app", "platform": "linux/a/b/c"}),
        ("credentials", {"reference": "app", "credentials": pb2.RegistryCredentials(password="p")}),
        ("credentials.username", {"reference": "app", "credentials": pb2.RegistryCredentials(username="a:b")}),
        ("registry_token", {"reference": "app", "credentials": pb2.RegistryCredentials(registry_token="a\nb: c")}),
    ],
)
async def test_what_is_wrong_is_named(api: Api, field: str, fields: dict[str, Any]) -> None:
    refusal = await refused(pull(api, **fields))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(refusal)
    assert api.executor.pulls == []


async def test_unknown_node(api: Api) -> None:
    assert (await refused(pull(api, "app", node="other"))).code is grpc.StatusCode.NOT_FOUND


async def test_client_that_leaves_ends_the_pull(api: Api) -> None:
    call = api.images.PullImage(pb2.PullImageRequest(reference="me/slow"))
    first = await asyncio.wait_for(call.read(), 60)
    assert isinstance(first, pb2.PullImageResponse)
    assert first.HasField("progress")
    await api.executor.until(lambda: api.executor.streams == 1)
    call.cancel()
    await api.executor.until(lambda: api.executor.streams == 0)
