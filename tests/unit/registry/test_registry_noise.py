"""Whatever a registry or its token server sends: a value or an error of ours, soon, and nothing else."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SlipwayError
from executor_service.registry import exchange
from executor_service.registry.answers import retry_after
from executor_service.registry.challenges import parse_challenges
from executor_service.registry.client import RegistryClient
from executor_service.registry.manifests import chosen, is_index, parse_manifest
from executor_service.registry.source import DIGEST, Credentials, Endpoint, Platform
from tests.fixtures.damage import damaged, patient, told, values
from tests.fixtures.scripted_http import scripted

HERE = Platform(os="linux", architecture="amd64")
KIND = "application/vnd.oci.image.manifest.v1+json"
LIST = "application/vnd.oci.image.index.v1+json"
SHA = "sha256:" + "ab" * 32
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": SHA, "size": 5}
MANIFEST = {"schemaVersion": 2, "mediaType": KIND, "config": {**LAYER, "mediaType": "x"}, "layers": [LAYER, LAYER]}
INDEX = {
    "mediaType": LIST,
    "manifests": [
        {"mediaType": KIND, "digest": SHA, "size": 9, "platform": {"os": "linux", "architecture": "arm64"}},
        {"mediaType": KIND, "digest": SHA, "size": 9, "platform": {"os": "linux", "architecture": "amd64"}},
    ],
}
ERRORS = {"CORRUPT_IMAGE", "UNSUPPORTED_MANIFEST", "UNSUPPORTED_PLATFORM"}
headers = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=80)
PARTS = (
    *("Bearer ", "Basic ", "realm=", "scope=", "service=", ",", '"', "\\", " ", "=", "x", "\t"),
    *('"https://auth.test/t"', '"http://xn--a/"', '"https://["', '"https://:99999999/"', '"https://"'),
)
challenges = headers | st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@pytest.fixture(autouse=True, scope="module")
def quick() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "_BACKOFF", 0.0)
        yield


def read_manifest(content: bytes, media_type: str) -> None:
    try:
        if is_index(content, media_type):
            assert DIGEST.fullmatch(chosen(content, HERE).digest)
            return
        found = parse_manifest(content, media_type)
    except SlipwayError as error:
        assert told(error) in ERRORS
        return
    assert all(DIGEST.fullmatch(each.digest) and each.size >= 0 for each in (found.config, *found.layers))


@patient
@given(damaged(MANIFEST) | damaged(INDEX) | st.binary() | values.map(lambda value: json.dumps(value).encode()), headers)
def test_any_manifest(content: bytes, media_type: str) -> None:
    for kind in (media_type, KIND, LIST):
        read_manifest(content, kind)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b'{"layers":' + b"[" * 900 + b"]" * 900 + b"}"]
)
def test_deep_documents(content: bytes) -> None:
    read_manifest(content, KIND)


@pytest.mark.parametrize(
    "digest",
    ["latest", "../../other/manifests/1", "md5:" + "0" * 32, "shake_128:00", "nosuch:00", SHA + "\n", "\ud800"],
)
async def test_an_index_names_manifests_by_digest_alone(digest: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        entry = {"mediaType": KIND, "digest": digest, "size": 9, "platform": {"os": "linux", "architecture": "amd64"}}
        return httpx.Response(200, content=json.dumps({"mediaType": LIST, "manifests": [entry]}).encode())

    with pytest.raises(SlipwayError) as refused:
        await client(answer).resolve("1", HERE, time.monotonic() + 60)
    assert told(refused.value) == "CORRUPT_IMAGE"
    assert asked == ["/v2/a/b/manifests/1"]


def client(answer: object) -> RegistryClient:
    endpoint = Endpoint(host="reg.test", repository="a/b", credentials=Credentials(username="u", password="hush"))
    return RegistryClient(scripted(answer), [endpoint], lambda: 0.0)  # type: ignore[arg-type]  # one of those below


async def outcome(answer: object) -> str:
    try:
        await client(answer).resolve("1", HERE, time.monotonic() + 60)
    except SlipwayError as error:
        assert "hush" not in error.message
        return told(error)
    return ""


@patient
@given(st.lists(challenges, max_size=3), damaged({"token": "t", "access_token": "t"}) | st.binary())
async def test_any_challenge_and_any_token(asked: list[str], token: bytes) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/v2/"):
            if "Authorization" in request.headers:
                return httpx.Response(403)
            return httpx.Response(401, headers=[("WWW-Authenticate", each) for each in asked])
        return httpx.Response(200, content=token)

    assert await outcome(answer) in {
        *("REGISTRY_LOGIN_REFUSED", "REGISTRY_ACCESS_DENIED", "REGISTRY_UNAVAILABLE", "INSECURE_REALM"),
    }


@patient
@given(
    headers | st.sampled_from(["http://xn--a/", "https://[", "//:0:0", "ftp://x/", "http://", "\\", "https://a:99999/"])
)
async def test_any_redirect(location: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if str(request.url) != "https://reg.test/v2/a/b/manifests/1":
            return httpx.Response(404)
        return httpx.Response(302, headers={"Location": location})

    assert await outcome(answer) in {
        "IMAGE_NOT_FOUND",
        "INSECURE_REDIRECT",
        "REGISTRY_REDIRECTS",
        "REGISTRY_UNAVAILABLE",
    }


@patient
@given(headers, st.integers(100, 999))
async def test_any_status_and_wish_to_be_left_alone(wish: str, status: int) -> None:
    answer = lambda _: httpx.Response(status, headers={"Retry-After": wish, "Content-Type": wish}, content=b"x")  # noqa: E731
    assert re.fullmatch(r"[A-Z_]+", await outcome(answer))


@patient
@given(headers)
def test_any_retry_after(text: str) -> None:
    found = retry_after(text)
    assert found is None or 0 <= found <= 7 * 24 * 3600


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), (" 7 ", 7), ("99999999", 7 * 24 * 3600), ("-1", None), ("1.5", None), ("", None), ("soon", None),
     ("Sun, 06 Nov 1994 08:49:37 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 7 * 24 * 3600)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(text: str, expected: float | None) -> None:
    assert retry_after(text) == expected


@patient
@given(st.lists(challenges, max_size=3))
def test_any_challenge_is_read(asked: list[str]) -> None:
    for challenge in parse_challenges(asked):
        assert challenge.scheme == challenge.scheme.lower() != ""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (['Bearer realm="https://a/t",service="s",scope="repository:a/b:pull"'],
         [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull"})]),
        (['Basic realm="a, b", Bearer realm=c,scope="x \\"y\\""'],
         [("basic", {"realm": "a, b"}), ("bearer", {"realm": "c", "scope": 'x "y"'})]),
        (["Negotiate", "BEARER  Realm = x"], [("negotiate", {}), ("bearer", {"realm": "x"})]),
        (["realm=x", "", ",,"], []),
        (['Bearer realm="x'], [("bearer", {}), ("realm", {})]),
    ],
)  # fmt: skip
def test_challenges_are_read_as_the_grammar_has_them(
    asked: list[str], expected: list[tuple[str, dict[str, str]]]
) -> None:
    assert [(each.scheme, dict(each.parameters)) for each in parse_challenges(asked)] == expected


@pytest.mark.parametrize("piece", ['a="', "a=", "\\", " ", ",", "a", 'a="\\', "a ", "=", '"'])
def test_long_challenges_take_no_time(piece: str) -> None:
    begun = time.process_time()
    parse_challenges([piece * 200_000, "Bearer " + piece * 200_000])
    assert time.process_time() - begun < 10  # seconds; where it is not linear it takes hours
