"""A registry that lies, loops, dawdles or refuses, seen through both services: told, and nothing left of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from slipway.v1 import image_service_pb2 as pb

from tests.fixtures.busybox import busybox_image
from tests.fixtures.http_server import Answer, Asked, send, send_head
from tests.fixtures.images import ARCHITECTURE, BuiltImage, descriptor, directory, member, tar
from tests.fixtures.scripted_registry import INDEX, MANIFEST, ScriptedRegistry, scripted_registry
from tests.fixtures.slipway import Slipway, installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

SIZE = 400_000  # bytes of the layers that are pulled


def layer(name: str) -> bytes:
    return tar([directory("pulled"), member(f"pulled/{name}", random.Random(name).randbytes(SIZE))])


IMAGE = BuiltImage(layers=[*busybox_image().layers, layer("a"), layer("b")], config={"Cmd": ["ls", "/pulled"]})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    """Calls slow what this test itself is, for a moment, on a busy machine: for registries that are meant to be."""
    async with installed(tmp_path_factory.mktemp("impatient"), executor=["--registry-stall", "1"]) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def source() -> AsyncIterator[ScriptedRegistry]:
    async with scripted_registry(IMAGE) as made:
        yield made


async def pull(
    engine: Slipway, source: ScriptedRegistry, *, reference: str = ":1", seconds: float = 60
) -> tuple[str, int]:
    """The id, and how often a connection was made again."""
    retries: dict[str, int] = {}
    call = engine.images.PullImage(pb.PullImageRequest(reference=f"{source.host}/team/app{reference}"), timeout=seconds)
    async for answer in call:
        if answer.HasField("image"):
            return answer.image.image.id, sum(retries.values())
        retries[answer.progress.digest] = answer.progress.retries
    raise AssertionError("the pull ended without an image")


async def refusal(engine: Slipway, source: ScriptedRegistry, **how: object) -> tuple[str, str, Status]:
    """Code, reason and all of it."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pull(engine, source, **how)  # type: ignore[arg-type]  # those of `pull`
    return told(raised.value)


def told(error: grpc.aio.AioRpcError) -> tuple[str, str, Status]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has the metadata
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.code().name, info.reason, status


def storage(engine: Slipway, below: str) -> list[Path]:
    return list(Path(f"/var/lib/slipway-{engine.instance}/storage/{below}").iterdir())


def descriptors(engine: Slipway) -> int:
    return len(list(Path(f"/proc/{engine.executor.pid}/fd").iterdir()))


def as_manifest(change: Callable[[dict[str, object]], object]) -> Callable[[ScriptedRegistry], Answer]:
    """Sends the manifest with something changed."""

    def made(source: ScriptedRegistry) -> Answer:
        document = json.loads(source.manifest)
        change(document)
        return with_body(json.dumps(document).encode())(source)

    return made


def with_body(body: bytes, kind: str = MANIFEST) -> Callable[[ScriptedRegistry], Answer]:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send(writer, 200, body, {"Content-Type": kind})

    return lambda _: answer


def with_status(status: int, **headers: str) -> Callable[[ScriptedRegistry], Answer]:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send(writer, status, b"no", {name.replace("_", "-"): text for name, text in headers.items()})

    return lambda _: answer


def circle(source: ScriptedRegistry) -> Answer:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send(writer, 307, headers={"Location": asked.target})

    return answer


async def flood(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A body without end, in a length that nobody has said."""
    send_head(writer, 200, {"Content-Type": MANIFEST})
    while True:
        writer.write(bytes(1 << 16))
        await writer.drain()


async def drip(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A body, byte by byte."""
    send_head(writer, 200, {"Content-Type": MANIFEST, "Content-Length": SIZE})
    while True:
        writer.write(b"{")
        await writer.drain()
        await asyncio.sleep(0.05)


def drips_layer(source: ScriptedRegistry) -> Answer:
    """What it sends is right, and a little more comes with each connection."""
    data = source.blobs[source.layers[-1]]

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        send_head(writer, 206 if start else 200, {"Content-Length": len(data) - start})
        for byte in data[start:]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    return answer


async def drip_head(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Slow: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silence(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def garbage(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 this is no HTTP \r\n\r\n" * 100)


def always(answer: Answer) -> Callable[[ScriptedRegistry], Answer]:
    return lambda _: answer


def truncated(source: ScriptedRegistry) -> Answer:
    """The first half again and again, whatever range is asked for, and a length that is a lie."""
    data = source.blobs[source.layers[-1]]

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        send_head(writer, 200, {"Content-Length": len(data)})
        writer.write(data[: len(data) // 2])

    return answer


def wrong_bytes(more: int) -> Callable[[ScriptedRegistry], Answer]:
    def made(source: ScriptedRegistry) -> Answer:
        data = source.blobs[source.layers[-1]]
        return with_body(bytes(len(data) + more))(source)

    return made


def nested(source: ScriptedRegistry) -> Answer:
    """Each index leads to the next one."""
    content = source.manifest
    kind = MANIFEST
    for _ in range(100):
        entry = {**descriptor(content, kind), "platform": {"os": "linux", "architecture": ARCHITECTURE}}
        content, kind = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode(), INDEX
        path = f"/v2/team/app/manifests/{descriptor(content, kind)['digest']}"
        source.instead[path] = with_body(content, kind)(source)
    return source.instead[path]


def asks_token_server(instead: Answer) -> Callable[[ScriptedRegistry], Answer]:
    def made(source: ScriptedRegistry) -> Answer:
        source.instead["/token"] = instead
        return with_status(401, WWW_Authenticate=f'Bearer realm="http://{source.host}/token",service="s"')(source)

    return made


def layer_of(**fields: object) -> Callable[[ScriptedRegistry], Answer]:
    return as_manifest(lambda document: document["layers"][-1].update(fields))  # type: ignore[index]  # a list


DENIED, CORRUPT, AWAY = "PERMISSION_DENIED", ("INVALID_ARGUMENT", "CORRUPT_IMAGE"), "UNAVAILABLE"
UNSUPPORTED, SLOW = ("INVALID_ARGUMENT", "UNSUPPORTED_MANIFEST"), (AWAY, "REGISTRY_TOO_SLOW")
TABLE: dict[str, tuple[str, Callable[[ScriptedRegistry], Answer], tuple[str, str], str]] = {
    # what it does: with which requests, how, what is told, and the words
    "config with a wrong digest": ("config", with_body(bytes(len(IMAGE.config_json))), CORRUPT, "has the digest"),
    "layer with a wrong digest": ("layer", wrong_bytes(0), CORRUPT, "push the image again"),
    "layer with more bytes": ("layer", wrong_bytes(5), CORRUPT, "sends more than"),
    "layer without end": ("layer", always(flood), CORRUPT, "sends more than"),
    "truncated layer": ("layer", truncated, (AWAY, "REGISTRY_UNAVAILABLE"), "goes on where it stopped"),
    "layer that is not there": ("layer", with_status(404), ("NOT_FOUND", "IMAGE_NOT_FOUND"), "does not have it"),
    "layer that redirects to itself": ("layer", circle, (AWAY, "REGISTRY_REDIRECTS"), "5 redirects"),
    "layer by drops": ("layer", drips_layer, SLOW, "bytes in"),
    "layer in silence": ("layer", always(silence), SLOW, "goes on where it stopped"),
    "layer with 500": ("layer", with_status(500), (AWAY, "REGISTRY_UNAVAILABLE"), "HTTP status 500"),
    "manifest without end": ("manifest", always(flood), CORRUPT, "more than 4194304 bytes"),
    "manifest too large": ("manifest", with_body(b" " * (5 << 20)), CORRUPT, "more than 4194304 bytes"),
    "manifest of a web page": ("manifest", with_body(b"<html>", "text/html"), CORRUPT, "not a JSON document"),
    "manifest of a wrong type": ("manifest", with_body(b"{}", "text/html"), UNSUPPORTED, "media type"),
    "manifest of deep JSON": ("manifest", with_body(b"[" * 100_000), CORRUPT, "not a JSON document"),
    "manifest by drops": ("manifest", always(drip), SLOW, "bytes in"),
    "head by drops": ("manifest", always(drip_head), SLOW, "the head of an answer"),
    "no HTTP": ("manifest", always(garbage), (AWAY, "REGISTRY_UNAVAILABLE"), "look whether the node reaches it"),
    "index of indexes": ("manifest", nested, UNSUPPORTED, "is an index too"),
    "layer of a wrong type": ("manifest", layer_of(mediaType="text/plain"), UNSUPPORTED, "'text/plain'"),
    "layer that is too large": (
        "manifest", layer_of(size=1 << 50), ("RESOURCE_EXHAUSTED", "IMAGE_TOO_LARGE"), "the limit of this node",
    ),
    "layer of another image": (
        "manifest", as_manifest(lambda d: d["layers"].reverse()), CORRUPT, "diff id",  # type: ignore[attr-defined]
    ),
    "layer named by a path": ("manifest", layer_of(digest="../../../etc/passwd"), CORRUPT, "is not a digest"),
    "redirects in a circle": ("manifest", circle, (AWAY, "REGISTRY_REDIRECTS"), "5 redirects"),
    "401": ("manifest", with_status(401), ("UNAUTHENTICATED", "REGISTRY_LOGIN_REFUSED"), "credentials"),
    "403": ("manifest", with_status(403), (DENIED, "REGISTRY_ACCESS_DENIED"), "credentials"),
    "404": ("manifest", with_status(404), ("NOT_FOUND", "IMAGE_NOT_FOUND"), "look whether name and tag are right"),
    "500": ("manifest", with_status(500), (AWAY, "REGISTRY_UNAVAILABLE"), "HTTP status 500"),
    "429 for an hour": (
        "manifest", with_status(429, Retry_After="3600"), (AWAY, "REGISTRY_RATE_LIMITED"), "in 3600 s or later",
    ),
    "layer with 429 for an hour": (
        "layer", with_status(429, Retry_After="3600"), (AWAY, "REGISTRY_RATE_LIMITED"), "in 3600 s or later",
    ),
    "token without end": ("manifest", asks_token_server(flood), (AWAY, "REGISTRY_UNAVAILABLE"), "its token server"),
    "token server that refuses": (
        "manifest", lambda s: asks_token_server(with_status(401)(s))(s),
        ("UNAUTHENTICATED", "REGISTRY_LOGIN_REFUSED"), "credentials",
    ),
    "challenge of nonsense": (
        "manifest", with_status(401, WWW_Authenticate='Bearer realm="//[", ,,="'), (DENIED, "INSECURE_REALM"), "token",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
async def test_it_is_told_and_nothing_is_left(
    engine: Slipway, impatient: Slipway, source: ScriptedRegistry, name: str
) -> None:
    what, instead, expected, words = TABLE[name]
    engine = impatient if expected == SLOW else engine
    before = descriptors(engine)
    source.instead[what] = instead(source)
    code, reason, status = await refusal(engine, source)
    assert (code, reason) == expected
    assert words in status.message
    if code in (AWAY, "NOT_FOUND", "UNAUTHENTICATED", DENIED):
        assert source.host in status.message
    if code == AWAY:
        retry = error_details_pb2.RetryInfo()
        assert status.details[-1].Unpack(retry)
        assert retry.retry_delay.seconds == (3600 if reason == "REGISTRY_RATE_LIMITED" else 5)
    async with asyncio.timeout(60):
        await source.idle()  # no connection
        while storage(engine, "staging") or storage(engine, "trash") or descriptors(engine) > before:
            await asyncio.sleep(0.02)
    # What is kept is good, of these layers, and not more than they are.
    kept = {
        path.name.replace("-", ":"): path
        for below in ("blobs", "partial")
        for path in storage(engine, f"content/{below}")
    }
    assert set(kept) <= set(source.layers)
    for digest, path in kept.items():
        assert source.blobs[digest].startswith(path.read_bytes())
    if expected == CORRUPT and what == "layer":
        assert source.layers[-1] not in kept
    assert len((await engine.images.ListImages(pb.ListImagesRequest())).images) == 1

    source.heal()
    source.sent.clear()
    whole = {digest for digest, path in kept.items() if path.parent.name == "blobs"}
    assert (await pull(engine, source))[0] == IMAGE.id
    assert not whole & set(source.sent)
    assert [*storage(engine, "content/blobs"), *storage(engine, "content/partial")] == []
    await engine.images.RemoveImage(pb.RemoveImageRequest(image=IMAGE.id, force=True), timeout=30)


async def test_a_manifest_that_is_not_the_one_of_its_digest(engine: Slipway, source: ScriptedRegistry) -> None:
    right = hashlib.sha256(source.manifest).hexdigest()
    source.instead["manifest"] = with_body(source.manifest + b" ")(source)
    code, reason, status = await refusal(engine, source, reference=f"@sha256:{right}")
    assert (code, reason) == CORRUPT
    assert "another digest" in status.message


@pytest.mark.parametrize("what", ["manifest", "layer"])
async def test_the_wish_to_be_left_alone_is_granted(engine: Slipway, source: ScriptedRegistry, what: str) -> None:
    answers: list[float] = []

    async def busy(asked: Asked, writer: asyncio.StreamWriter) -> None:
        answers.append(asyncio.get_running_loop().time())
        if len(answers) == 1:
            send(writer, 429, headers={"Retry-After": 2})
        else:
            await source.good(asked, writer)

    source.instead[what] = busy
    image_id, retries = await pull(engine, source)
    assert image_id == IMAGE.id
    assert answers[1] - answers[0] >= 2
    assert retries == (1 if what == "layer" else 0)
    await engine.images.RemoveImage(pb.RemoveImageRequest(image=IMAGE.id, force=True), timeout=30)


async def test_beyond_the_calls_deadline_it_is_told_at_once(engine: Slipway, source: ScriptedRegistry) -> None:
    source.instead["manifest"] = with_status(429, Retry_After="50")(source)
    async with asyncio.timeout(30):
        code, reason, status = await refusal(engine, source, seconds=40)
    assert (code, reason) == (AWAY, "REGISTRY_RATE_LIMITED")
    retry = error_details_pb2.RetryInfo()
    assert status.details[-1].Unpack(retry)
    assert retry.retry_delay.seconds == 50
    assert len(source.asked) == 1


@pytest.mark.parametrize("length", [0.5, 2.0])
async def test_a_length_that_is_a_lie_costs_a_connection(
    engine: Slipway, source: ScriptedRegistry, length: float
) -> None:
    """The whole layer is sent under half of its length, or twice of it."""
    data, first = source.blobs[source.layers[-1]], True

    async def lying(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        if not first:
            await source.good(asked, writer)
            return
        first = False
        send_head(writer, 200, {"Content-Length": int(len(data) * length)})
        writer.write(data)

    source.instead["layer"] = lying
    assert await pull(engine, source) == (IMAGE.id, 1)
    await engine.images.RemoveImage(pb.RemoveImageRequest(image=IMAGE.id, force=True), timeout=30)


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (with_status(500), (AWAY, "REGISTRY_UNAVAILABLE"), "HTTP status 500"),
        (with_status(429, Retry_After="3600"), (AWAY, "REGISTRY_RATE_LIMITED"), "in 3600 s or later"),
        (with_status(403), (DENIED, "REGISTRY_ACCESS_DENIED"), "credentials"),
        (with_status(401), ("UNAUTHENTICATED", "REGISTRY_LOGIN_REFUSED"), "credentials"),
        (with_status(202, Location="http://192.0.2.9/v2/"), (AWAY, "UPLOAD_ELSEWHERE"), "192.0.2.9"),
        (with_status(307, Location="http://192.0.2.9/v2/"), (AWAY, "REGISTRY_UNAVAILABLE"), "HTTP status 307"),
        (always(silence), SLOW, "goes on where it stopped"),
    ],
)
async def test_a_push_is_told_and_nothing_is_left(
    engine: Slipway,
    impatient: Slipway,
    source: ScriptedRegistry,
    answer: Callable[[ScriptedRegistry], Answer],
    expected: tuple[str, str],
    words: str,
) -> None:
    engine = impatient if expected == SLOW else engine
    name, before = f"{source.host}/team/pushed:1", descriptors(engine)
    await engine.images.TagImage(pb.TagImageRequest(image="busybox", target=name))
    source.instead["upload"] = answer(source)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        _ = [each async for each in engine.images.PushImage(pb.PushImageRequest(image=name), timeout=60)]
    code, reason, status = told(raised.value)
    assert (code, reason) == expected
    assert words in status.message
    assert not any("/manifests/" in path for path in source.asked)
    async with asyncio.timeout(60):
        await source.idle()
        while storage(engine, "staging") or descriptors(engine) > before:
            await asyncio.sleep(0.02)
    await engine.images.RemoveImage(pb.RemoveImageRequest(image=name), timeout=30)
