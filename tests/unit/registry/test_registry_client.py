"""The registry client against scripted answers: tokens, ranges, platforms, refusals."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable

import httpx
import pytest

from common.errors import InvalidArgument, NotFound, PermissionDenied, SlipwayError, Unauthenticated, Unavailable
from executor_service.registry.client import RegistryClient
from executor_service.registry.source import Credentials, Descriptor, Endpoint, Platform, Retry
from tests.fixtures.scripted_http import scripted, streamed

DATA = bytes(range(256)) * 100
ARM = Platform(os="linux", architecture="arm64", variant="v8")
KIND = "application/vnd.oci.image.manifest.v1+json"


def descriptor(data: bytes, kind: str = "application/vnd.oci.image.layer.v1.tar+gzip") -> Descriptor:
    return Descriptor(media_type=kind, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))


def client(answer: Callable[[httpx.Request], httpx.Response], **shown: str) -> RegistryClient:
    http = scripted(answer)
    endpoint = Endpoint(host="reg.test", repository="a/b", credentials=Credentials(**shown))
    return RegistryClient(http, [endpoint], lambda: 60.0)


async def read(registry: RegistryClient, offset: int = 0, retries: list[Retry] | None = None) -> bytes:
    heard = (retries if retries is not None else []).append
    async with registry.blob(descriptor(DATA), offset, heard) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_token_is_fetched_with_the_password_and_shown_to_the_registry_alone() -> None:
    seen: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        shown = request.headers.get("Authorization")
        seen.append((request.url.host, shown))
        if request.url.host == "auth.test":
            assert request.url.params["scope"] == "repository:a/b:pull"
            return httpx.Response(200, json={"token": "t0"})
        if request.url.host == "cdn.test":
            return httpx.Response(200, content=streamed(DATA))
        if shown != "Bearer t0":
            challenge = 'Bearer realm="https://auth.test/token",service="s",scope="repository:a/b:pull"'
            return httpx.Response(401, headers={"WWW-Authenticate": challenge})
        return httpx.Response(307, headers={"Location": "https://cdn.test/blob"})

    assert await read(client(answer, username="u", password="p")) == DATA
    assert seen == [
        ("reg.test", None),
        ("auth.test", "Basic dTpw"),
        ("reg.test", "Bearer t0"),
        ("cdn.test", None),
    ]


@pytest.mark.parametrize("ignores_range", [False, True])
async def test_blob_goes_on_after_a_broken_connection(ignores_range: bool) -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Range"))
        start = int(asked[-1][6:-1]) if asked[-1] else 0  # bytes=<start>-
        if len(asked) == 1:
            return httpx.Response(503)
        if ignores_range:
            return httpx.Response(200, content=streamed(DATA))
        end = min(start + 20_000, len(DATA))
        return httpx.Response(206 if start else 200, content=streamed(DATA[start:end]))

    retries: list[Retry] = []
    assert await read(client(answer), 1000, retries) == DATA[1000:]
    assert asked[:2] == ["bytes=1000-", "bytes=1000-"]
    assert len(retries) == len(asked) - 1
    assert "503" in retries[0].reason


async def test_index_is_followed_by_platform_and_every_byte_is_checked() -> None:
    layer, config = descriptor(DATA), descriptor(b"{}", "application/vnd.oci.image.config.v1+json")
    parts = [{"mediaType": each.media_type, "digest": each.digest, "size": each.size} for each in (config, layer)]
    manifest = json.dumps({"mediaType": KIND, "config": parts[0], "layers": parts[1:]}).encode()
    arm = descriptor(manifest, KIND)
    item = {"mediaType": KIND, "digest": arm.digest, "size": arm.size}
    index = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {**item, "digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "amd64"}},
            {**item, "platform": {"os": "linux", "architecture": "arm64"}},
        ],
    }
    bodies = {"latest": json.dumps(index).encode(), arm.digest: manifest}
    registry = client(lambda request: httpx.Response(200, content=bodies[request.url.path.rpartition("/")[2]]))
    found = await registry.resolve("latest", ARM, time.monotonic() + 60)
    assert found.index_digest == descriptor(bodies["latest"]).digest
    assert (found.descriptor, found.config, found.layers, found.content) == (arm, config, (layer,), manifest)
    with pytest.raises(InvalidArgument, match="linux/s390x; it is there for linux/amd64, linux/arm64"):
        await registry.resolve("latest", Platform(os="linux", architecture="s390x"), time.monotonic() + 60)
    bodies[arm.digest] = manifest + b" "
    with pytest.raises(InvalidArgument, match="another digest"):
        await registry.resolve("latest", ARM, time.monotonic() + 60)


@pytest.mark.parametrize("status", [404, 403, 500])
async def test_mirror_that_fails_is_left_for_the_registry(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the manifest, and in the middle of a blob; what had come of that is not asked for again."""
    monkeypatch.setattr("executor_service.registry.exchange._BACKOFF", 0.0)
    asked: list[tuple[str, str]] = []
    shown: set[tuple[str, str]] = set()

    def answer(request: httpx.Request) -> httpx.Response:
        place = request.url.host
        asked.append((place, request.headers.get("Range", "")))
        shown.add((place, request.headers.get("Authorization", "")))
        start = int(asked[-1][1][6:-1] or 0)
        if place == "gone.test":
            return httpx.Response(status)
        if "/manifests/" in request.url.path:
            config = {"mediaType": "c", "digest": descriptor(b"{}").digest, "size": 2}
            return httpx.Response(200, json={"mediaType": KIND, "config": config, "layers": []})
        if place == "half.test":
            return httpx.Response(status) if start else httpx.Response(200, content=streamed(DATA[:9000]))
        return httpx.Response(206, content=streamed(DATA[start:]))

    http = scripted(answer)
    hosts = ("gone.test", "half.test", "reg.test")
    endpoints = [
        Endpoint(host=host, repository="a/b", credentials=Credentials(registry_token=host.partition(".")[0]))
        for host in hosts
    ]
    registry = RegistryClient(http, endpoints, lambda: 60.0)
    await registry.resolve("1", ARM, time.monotonic() + 60)
    asked.clear()
    assert await read(registry) == DATA
    assert (asked[0], asked[-1]) == (("half.test", ""), ("reg.test", "bytes=9000-"))
    assert {place for place, _ in asked} == {"half.test", "reg.test"}
    assert shown == {(host, f"Bearer {host.partition('.')[0]}") for host in hosts}


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (403, PermissionDenied), (401, Unauthenticated)])
async def test_refusals_name_host_and_repository(status: int, kind: type[SlipwayError]) -> None:
    with pytest.raises(kind, match=r"registry reg\.test, repository a/b"):
        await client(lambda _: httpx.Response(status)).resolve("1", ARM, time.monotonic() + 60)


def test_secrets_are_not_shown() -> None:
    assert "p0" not in repr(Credentials(username="u", password="p0", identity_token="p0", registry_token="p0"))


async def test_identity_token_does_not_follow_a_redirect_of_the_token_server() -> None:
    hosts: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        if request.url.host == "reg.test":
            return httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="https://auth.test/token"'})
        return httpx.Response(307, headers={"Location": "https://thief.test/token"})

    with pytest.raises(SlipwayError) as caught:
        await read(client(answer, identity_token="secret"))
    assert "secret" not in caught.value.message
    assert hosts == ["reg.test", "auth.test"]


@pytest.mark.parametrize("loops", [False, True])
async def test_token_server_that_cannot_be_used_is_told(loops: bool) -> None:
    realm = "https://auth.test/token" if loops else "https://auth.test:port/"

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "reg.test":
            return httpx.Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
        return httpx.Response(302, headers={"Location": str(request.url)})

    with pytest.raises(Unavailable, match="its token server"):
        await read(client(answer, username="u", password="secret"))
