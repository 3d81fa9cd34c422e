"""A registry that answers without end, too slowly, or asks to be left alone: bounded, told apart, and waited for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from common.errors import InvalidArgument, PermissionDenied, SlipwayError, Unavailable
from executor_service.registry import bodies, exchange
from executor_service.registry.client import RegistryClient
from executor_service.registry.source import Credentials, Descriptor, Endpoint, Platform, Retry
from tests.fixtures.scripted_http import scripted, streamed

HERE = Platform(os="linux", architecture="amd64")
DATA = bytes(range(256)) * 4096
BLOB = Descriptor(media_type="", digest=f"sha256:{hashlib.sha256(DATA).hexdigest()}", size=len(DATA))
CONFIG = {"mediaType": "c", "digest": "sha256:" + "0" * 64, "size": 2}
KIND = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"mediaType": KIND, "config": CONFIG, "layers": []}).encode()

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_BACKOFF", 0.0)


def client(answer: Answer, *, patience: float = 60.0, hosts: tuple[str, ...] = ()) -> RegistryClient:
    shown = Credentials(username="u", password="p")
    endpoints = [Endpoint(host=host, repository="a/b", credentials=shown) for host in hosts or ("reg.test",)]
    return RegistryClient(scripted(answer), endpoints, lambda: patience)


async def resolve(registry: RegistryClient) -> None:
    await registry.resolve("1", HERE, time.monotonic() + 1000)


async def read(registry: RegistryClient, retries: list[Retry] | None = None) -> bytes:
    heard = (retries if retries is not None else []).append
    async with registry.blob(BLOB, 0, heard) as chunks:
        return b"".join([chunk async for chunk in chunks])


class Endless:
    """A body without an end, which counts what was taken of it."""

    def __init__(self, chunk: bytes = bytes(1 << 16)) -> None:
        self.taken = 0
        self._chunk = chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += len(self._chunk)
            yield self._chunk


@pytest.mark.parametrize(
    ("place", "kind", "most"),
    [("manifest", InvalidArgument, 5 << 20), ("redirect", SlipwayError, 0), ("token", Unavailable, 1 << 20),
     ("refusal", PermissionDenied, 0), ("challenge", SlipwayError, 0)],
)  # fmt: skip
async def test_a_body_without_end_is_not_read(place: str, kind: type[SlipwayError], most: int) -> None:
    endless = Endless()
    challenge = {"WWW-Authenticate": 'Bearer realm="https://auth.test/token"'}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.test":
            return httpx.Response(200 if place == "token" else 403, content=endless if place == "token" else b"")
        status = {"manifest": 200, "redirect": 302, "refusal": 403}.get(place, 401)
        headers = challenge if status == 401 else {"Location": "/elsewhere"} if status == 302 else {}
        return httpx.Response(status, headers=headers, content=endless)

    with pytest.raises(kind):
        await resolve(client(answer))
    assert endless.taken <= most


async def test_nothing_is_unpacked_on_the_way() -> None:
    """A few bytes of zstd or gzip may be gigabytes: no registry is believed that a manifest has to be unpacked."""
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Accept-Encoding"))
        return httpx.Response(200, headers={"Content-Encoding": "zstd"}, content=streamed(b"\x28\xb5\x2f\xfd" * 9))

    with pytest.raises(InvalidArgument, match="not a JSON document"):
        await resolve(client(answer))
    assert asked == ["identity"]


async def test_redirects_are_followed_and_counted() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("n", "0"))
        if request.url.host == "short.test" and number == bodies.MAX_REDIRECTS:
            return httpx.Response(200, content=MANIFEST)
        return httpx.Response(307, headers={"Location": f"?n={number + 1}"}, content=b"see there")

    await resolve(client(answer, hosts=("short.test",)))
    with pytest.raises(Unavailable, match="more than 5 redirects") as caught:
        await resolve(client(answer))
    assert caught.value.reason == "REGISTRY_REDIRECTS"


@pytest.mark.parametrize("place", ["registry", "token server"])
async def test_no_redirect_leads_from_https_to_http(place: str) -> None:
    """Who can change what comes on the way would choose what a tag means."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.scheme == "http":
            return httpx.Response(200, content=MANIFEST)
        if place == "token server" and request.url.host == "reg.test":
            return httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="https://auth.test/t"'})
        return httpx.Response(307, headers={"Location": "http://elsewhere.test/x"})

    with pytest.raises(PermissionDenied, match=r"from HTTPS to 'elsewhere\.test' without it") as caught:
        await resolve(client(answer))
    assert caught.value.reason == "INSECURE_REDIRECT"
    assert not [url for url in asked if url.startswith("http:")]


def trickle(clock: list[float]) -> AsyncIterator[bytes]:
    async def drops() -> AsyncIterator[bytes]:
        for byte in DATA:
            clock[0] += 5.0
            yield bytes([byte])

    return drops()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now


@pytest.mark.parametrize("what", ["manifest", "blob"])
async def test_a_trickle_is_given_up(clock: list[float], what: str) -> None:
    requests: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.headers.get("Range", ""))
        return httpx.Response(200 if len(requests) == 1 else 206, content=trickle(clock))

    with pytest.raises(Unavailable, match=r"bytes in 3\d\.\d s") as caught:
        await (resolve if what == "manifest" else read)(client(answer))
    assert caught.value.reason == "REGISTRY_TOO_SLOW"
    assert len(requests) == (4 if what == "manifest" else 6)  # although each brought a little
    assert len(set(requests)) == (1 if what == "manifest" else 6)


async def test_a_reader_who_takes_his_time_is_not_the_registrys_fault(clock: list[float]) -> None:
    registry = client(
        lambda _: httpx.Response(200, content=streamed(*(DATA[at : at + 100] for at in range(0, 9000, 100))))
    )
    with pytest.raises(Unavailable, match="it sent 9000 of"):
        async with registry.blob(BLOB) as chunks:
            async for _ in chunks:
                clock[0] += 100.0


async def test_a_head_that_does_not_come_is_given_up() -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    http = httpx.AsyncClient(transport=httpx.MockTransport(hang))
    registry = RegistryClient(http, [Endpoint(host="reg.test", repository="a/b")], lambda: 60.0, stall=0.01)
    with pytest.raises(Unavailable, match="the head of an answer") as caught:
        await resolve(registry)
    assert caught.value.reason == "REGISTRY_TOO_SLOW"


async def test_the_wish_to_be_left_alone_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", wait)
    answers = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503),
        httpx.Response(200, content=DATA),
    ]
    retries: list[Retry] = []
    assert await read(client(lambda _: answers.pop(0), patience=8.0), retries) == DATA
    assert waits == [7.0, 0.0]
    assert [retry.delay for retry in retries] == waits
    assert "429" in retries[0].reason


async def test_the_wish_takes_nothing_of_the_time_a_manifest_has(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    shift = 0.0
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + shift)
    sleep = asyncio.sleep

    async def wait(seconds: float) -> None:
        nonlocal shift
        shift += seconds
        await sleep(0.001)  # timers that are due have their turn

    monkeypatch.setattr(asyncio, "sleep", wait)
    answers = [httpx.Response(429, headers={"Retry-After": "500"}), httpx.Response(200, content=MANIFEST)]
    registry = client(lambda _: answers.pop(0), patience=3600.0)
    await registry.resolve("1", HERE, time.monotonic() + 120.0)
    assert not answers


@pytest.mark.parametrize("by", ["registry", "token server"])
async def test_nobody_waits_longer_than_he_wants_to(by: str) -> None:
    requests: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.host)
        if by == "token server" and request.url.host == "reg.test":
            return httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="https://auth.test/t"'})
        return httpx.Response(429, headers={"Retry-After": "90"})

    with pytest.raises(Unavailable, match="repeat the request in 90 s") as caught:
        await resolve(client(answer, patience=89.0))
    assert (caught.value.reason, caught.value.retry_after) == ("REGISTRY_RATE_LIMITED", 90.0)
    assert len(requests) == (1 if by == "registry" else 2)


async def test_a_mirror_that_wants_to_be_left_alone_is_left() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.host == "mirror.test":
            return httpx.Response(429, headers={"Retry-After": "5"})
        return httpx.Response(200, content=MANIFEST)

    await resolve(client(answer, hosts=("mirror.test", "reg.test")))
    assert asked == ["mirror.test", "reg.test"]


async def test_three_blobs_of_a_client_come_at_a_time() -> None:
    go, begun = asyncio.Event(), 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        await go.wait()
        yield DATA

    registry = client(lambda _: httpx.Response(200, content=slow()))
    reading = [asyncio.create_task(read(registry)) for _ in range(5)]
    while begun < 3:
        await asyncio.sleep(0)
    assert await read(client(lambda _: httpx.Response(200, content=DATA))) == DATA
    assert begun == 3
    go.set()
    assert await asyncio.gather(*reading) == [DATA] * 5


async def test_a_range_that_was_not_asked_for_is_not_taken() -> None:
    requests: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.headers.get("Range", ""))
        if len(requests) == 1:
            return httpx.Response(200, content=DATA[:1000])
        begin = 0 if len(requests) == 2 else 1000
        range_ = {"Content-Range": f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}"}
        return httpx.Response(206, headers=range_, content=DATA[begin:])

    retries: list[Retry] = []
    assert await read(client(answer), retries) == DATA
    assert "'bytes 0-" in retries[1].reason


async def test_an_index_of_indexes_is_told() -> None:
    media = "application/vnd.oci.image.index.v1+json"
    content = json.dumps({"mediaType": media, "manifests": []}).encode()
    inner = {"mediaType": media, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
    outer = {"mediaType": media, "manifests": [{**inner, "platform": {"os": "linux", "architecture": "amd64"}}]}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=json.dumps(outer).encode() if request.url.path.endswith("/1") else content)

    with pytest.raises(InvalidArgument, match="is an index too") as caught:
        await resolve(client(answer))
    assert caught.value.reason == "UNSUPPORTED_MANIFEST"


async def test_a_token_that_expired_is_fetched_once_by_all_and_scopes_are_asked_for_one_by_one() -> None:
    tokens: list[list[str]] = []
    scope = "repository:a/b:pull repository:c/d:pull"

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.test":
            tokens.append(request.url.params.get_list("scope"))
            return httpx.Response(200, content=json.dumps({"token": f"t{len(tokens)}"}).encode())
        if request.headers.get("Authorization") != "Bearer t2":
            challenge = f'Bearer realm="https://auth.test/t",scope="{scope}"'
            return httpx.Response(401, headers={"WWW-Authenticate": challenge})
        return httpx.Response(200, content=DATA)

    registry = client(answer)
    with pytest.raises(SlipwayError):
        await read(registry)  # t1 is not good enough
    assert await asyncio.gather(*(read(registry) for _ in range(5))) == [DATA] * 5
    assert tokens == [scope.split()] * 2


async def test_requests_side_by_side_keep_each_others_scopes() -> None:
    """What one wants as well takes nothing from the other, who wants it not."""
    asked: list[list[str]] = []
    wanted = {"GET": "repository:a/b:pull", "POST": "repository:a/b:pull,push repository:c/d:pull"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.test":
            asked.append(sorted(request.url.params.get_list("scope")))
            return httpx.Response(200, content=json.dumps({"token": f"t{len(asked)}"}).encode())
        token = int(request.headers.get("Authorization", "Bearer t0")[8:])
        if (request.method == "POST" and token < 2) or token < 1:
            challenge = f'Bearer realm="https://auth.test/t",scope="{wanted[request.method]}"'
            return httpx.Response(401, headers={"WWW-Authenticate": challenge})
        return httpx.Response(200, content=b"{}")

    one = exchange.Exchange(scripted(answer), Endpoint(host="reg.test", repository="a/b"), patience=lambda: 1.0)
    for method in ("GET", "POST", "GET"):
        async with one.send(method, one.url("x"), what="x") as response:
            assert response.is_success
    assert asked == [["repository:a/b:pull"], ["repository:a/b:pull,push", "repository:c/d:pull"]]


@pytest.mark.parametrize(
    ("known", "error", "reason"),
    [(True, "insufficient_scope", "REGISTRY_ACCESS_DENIED"), (False, "insufficient_scope", "REGISTRY_LOGIN_REFUSED"),
     (True, "invalid_token", "REGISTRY_LOGIN_REFUSED")],
)  # fmt: skip
async def test_a_right_that_lacks_is_no_refused_login(known: bool, error: str, reason: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.test":
            return httpx.Response(200, content=b'{"token": "t"}')
        challenge = f'Bearer realm="https://auth.test/t",error="{error}"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    shown = Credentials(username="u", password="p") if known else Credentials()
    one = exchange.Exchange(
        scripted(answer), Endpoint(host="reg.test", repository="a/b", credentials=shown), patience=lambda: 1.0
    )
    with pytest.raises(SlipwayError) as caught:
        async with one.send("GET", one.url("x"), what="x"):
            pass
    assert caught.value.reason == reason


async def test_a_body_of_ours_has_its_own_time() -> None:
    """A piece of a push takes what it takes, as long as some of it moves."""

    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.2)
        return httpx.Response(200, content=streamed(b"x"))

    http = httpx.AsyncClient(transport=httpx.MockTransport(slow))
    one = exchange.Exchange(http, Endpoint(host="reg.test", repository="a/b"), patience=lambda: 60.0, stall=0.05)
    async with one.send("PATCH", one.url("x"), what="x", content=bytes(8 << 20)) as response:
        assert response.is_success
    with pytest.raises(httpx.TransportError, match="the head of an answer"):
        async with one.send("PATCH", one.url("x"), what="x", content=b"x"):
            pass
