"""Pushing to a registry that is scripted: pieces, what is lost on the way, mounts, and where nothing is sent to."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import httpx
import pytest

from common.errors import PermissionDenied, Unavailable
from executor_service.registry import exchange, target
from executor_service.registry.exchange import Exchange
from executor_service.registry.source import Credentials, Descriptor, Endpoint, Presence, Retry, read_from
from executor_service.registry.target import RegistryTarget
from tests.fixtures.scripted_http import scripted

DATA = bytes(range(256)) * 40
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
BLOB = Descriptor(media_type="application/octet-stream", digest=DIGEST, size=len(DATA))
OWN = "/v2/a/b"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_BACKOFF", 0.0)
    monkeypatch.setattr(target, "_PIECE", 3000)


class Registry:
    """One upload at a time. `faults`: what becomes of the n-th piece, `broken` before it arrives or `unheard` after."""

    def __init__(self) -> None:
        self.received = b""
        self.blobs: dict[str, bytes] = {}
        self.faults: dict[int, str] = {}
        self.pieces = 0
        self.asked: list[str] = []
        self.forgets = False
        self.elsewhere = ""
        self.password = ""
        self.mountable: set[str] = set()

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if self.password and request.headers.get("Authorization", "") != self.password:
            return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        place = {"Location": f"{self.elsewhere}{OWN}/blobs/uploads/1?state=x"}
        if request.method == "HEAD":
            return httpx.Response(200 if request.url.path.rpartition("/")[2] in self.blobs else 404)
        if request.method == "POST":
            if request.url.params.get("from") in self.mountable:
                return httpx.Response(201)
            self.received = b""
            return httpx.Response(202, headers=place)
        if request.method == "PATCH":
            return self._piece(request, place)
        if request.method == "GET":
            if self.forgets:
                return httpx.Response(404)
            return httpx.Response(204, headers={**place, "Range": f"0-{max(len(self.received) - 1, 0)}"})
        if "/manifests/" in request.url.path:
            digest = f"sha256:{hashlib.sha256(request.content).hexdigest()}"
            self.blobs[digest] = request.content
            return httpx.Response(201, headers={"Docker-Content-Digest": digest})
        assert request.url.params["state"] == "x"
        self.blobs[request.url.params["digest"]] = self.received
        return httpx.Response(201)

    def _piece(self, request: httpx.Request, place: dict[str, str]) -> httpx.Response:
        self.pieces += 1
        fault = self.faults.pop(self.pieces, "")
        if fault == "broken":
            raise httpx.ReadError("the connection broke")
        begin, _, end = request.headers["Content-Range"].partition("-")
        if int(begin) != len(self.received):
            return httpx.Response(416)
        assert int(end) - int(begin) + 1 == len(request.content)
        self.received += request.content
        if fault == "unheard":
            raise httpx.ReadError("the connection broke")
        return httpx.Response(202, headers=place)


def opened(
    registry: Registry, holders: OrderedDict[tuple[str, str], str] | None = None, **shown: str
) -> RegistryTarget:
    http = scripted(registry.answer)
    endpoint = Endpoint(host="reg.test:5000", repository="a/b", credentials=Credentials(**shown))
    return RegistryTarget(exchange_with(http, endpoint), OrderedDict() if holders is None else holders)


def exchange_with(http: httpx.AsyncClient, endpoint: Endpoint | None = None) -> Exchange:
    return Exchange(http, endpoint or Endpoint(host="reg.test", repository="a/b"), patience=lambda: 60.0)


async def test_a_blob_goes_in_pieces() -> None:
    registry, sent = Registry(), list[int]()
    await opened(registry).upload(BLOB, read_from(DATA), sent.append)
    assert registry.blobs == {DIGEST: DATA}
    assert sent == [3000, 6000, 9000, len(DATA)]


@pytest.mark.parametrize("fault", ["broken", "unheard"])
@pytest.mark.parametrize("piece", [1, 2, 4])
@pytest.mark.parametrize("forgets", [False, True])
async def test_a_broken_upload_goes_on_from_what_has_arrived(fault: str, piece: int, forgets: bool) -> None:
    registry, retries = Registry(), list[Retry]()
    registry.faults, registry.forgets = {piece: fault}, forgets
    await opened(registry).upload(BLOB, read_from(DATA), on_retry=retries.append)
    assert registry.blobs == {DIGEST: DATA}
    assert len(retries) == 1
    if not forgets and piece == 4:
        assert registry.pieces == (5 if fault == "broken" else 4) + 0
        assert registry.asked.count(f"POST {OWN}/blobs/uploads/") == 1


async def test_an_upload_that_gets_nowhere_is_given_up() -> None:
    registry = Registry()
    registry.faults, registry.forgets = dict.fromkeys(range(2, 200, 1), "broken"), True
    with pytest.raises(Unavailable, match=r"reg.test:5000, repository a/b.*repeat the request"):
        await opened(registry).upload(BLOB, read_from(DATA))
    assert registry.blobs == {}


async def test_what_is_there_is_found_and_what_another_repository_has_is_mounted() -> None:
    registry, holders = Registry(), OrderedDict[tuple[str, str], str]()
    own = opened(registry, holders)
    assert await own.find(DIGEST) is Presence.MISSING
    holders["reg.test:5000", DIGEST] = "other/repo"
    assert await own.find(DIGEST) is Presence.MISSING  # 202: it does not mount
    registry.mountable = {"other/repo"}
    assert await own.find(DIGEST) is Presence.MOUNTED
    registry.blobs[DIGEST] = DATA
    assert await own.find(DIGEST) is Presence.EXISTS
    assert holders["reg.test:5000", DIGEST] == "a/b"


async def test_nothing_is_sent_or_shown_elsewhere() -> None:
    registry = Registry()
    registry.elsewhere = "https://other.test"
    with pytest.raises(Unavailable, match=r"other\.test") as raised:
        await opened(registry, username="u", password="p").upload(BLOB, read_from(DATA))
    assert raised.value.reason == "UPLOAD_ELSEWHERE"
    assert registry.pieces == 0


async def test_a_login_is_shown_when_it_is_asked_for_and_pieces_are_whole_nevertheless() -> None:
    registry = Registry()
    registry.password = "Basic dTpw"
    await opened(registry, username="u", password="p").upload(BLOB, read_from(DATA))
    assert registry.blobs == {DIGEST: DATA}


async def test_a_refusal_is_told_at_once() -> None:
    def forbid(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403)

    http = scripted(forbid)
    refusing = RegistryTarget(exchange_with(http), OrderedDict())
    with pytest.raises(PermissionDenied, match="access is denied"):
        await refusing.upload(BLOB, read_from(DATA))


async def test_a_manifest_that_is_stored_as_another_is_no_success() -> None:
    registry = Registry()
    await opened(registry).put_manifest("latest", "application/json", b"{}")

    def lie(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, headers={"Docker-Content-Digest": "sha256:" + "0" * 64})

    http = scripted(lie)
    lying = RegistryTarget(exchange_with(http), OrderedDict())
    with pytest.raises(Unavailable, match="another manifest"):
        await lying.put_manifest("latest", "application/json", b"{}")
