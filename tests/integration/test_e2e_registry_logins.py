"""Real registries that ask who it is, by password, over TLS and with tokens; and what nobody may find of secrets."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import trustme
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from slipway.v1 import image_service_pb2 as pb

from executor_service.run import run
from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import BuiltImage, digest, directory, docker_archive, member, tar
from tests.fixtures.registry import PASSWORD, USER, Registry, Tls, registry, skopeo
from tests.fixtures.relay import relay
from tests.fixtures.slipway import CHUNK, PROGRAM_ENVIRONMENT, Slipway, installed
from tests.fixtures.token_issuer import TokenIssuer, token_issuer

ADDRESS = "192.0.2.1"  # RFC 5737; it is in the test's own network namespace
IDENTITY = "hush-identity-4Rw"
HELPED = "hush-helped-9Xc"
LAYERS = 5

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="no registry here"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

KINDS = ["anonymous", "password", "tls", "token"]
LOGIN = pb.RegistryCredentials(username=USER, password=PASSWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The registries by kind, the issuer of one of them, and what the API reads of logins."""

    registries: dict[str, Registry]
    issuer: TokenIssuer
    config: Path
    helper: Path

    def login(self, kind: str, entry: dict[str, str]) -> None:
        """As `docker login` leaves it."""
        self.write({"auths": {self.registries[kind].host: entry}})

    def write(self, config: object) -> None:
        self.config.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logins")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def places(scratch: Path) -> AsyncIterator[Places]:
    # Not a loopback address, which would be spoken to without TLS.
    await run(["ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo"], timeout=60)
    authority = trustme.CA()
    server = authority.issue_cert(ADDRESS)
    tls = Tls(certificate=scratch / "server.pem", key=scratch / "server.key")
    server.cert_chain_pems[0].write_to_path(tls.certificate)
    server.private_key_pem.write_to_path(tls.key)
    async with AsyncExitStack() as stack:
        programs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        programs.chmod(0o755)  # the API is another user
        issuer = await stack.enter_async_context(token_issuer(scratch))
        issuer.users = {USER: PASSWORD, "reader": HELPED}
        issuer.refresh = {IDENTITY: USER}
        issuer.rights = {USER: ("team/",), "": ("public/",)}
        opened = {
            "anonymous": registry(scratch / "anonymous"),
            "password": registry(scratch / "password", password=True),
            "tls": registry(scratch / "tls", address=ADDRESS, tls=tls, password=True),
            "token": registry(scratch / "token", auth=issuer.settings),
        }
        made = {kind: await stack.enter_async_context(each) for kind, each in opened.items()}
        trusted = scratch / "certs.d" / made["tls"].host
        trusted.mkdir(parents=True)
        authority.cert_pem.write_to_path(trusted / "authority.crt")
        yield Places(
            registries=made,
            issuer=issuer,
            config=programs / "config.json",
            helper=programs / "docker-credential-tests",
        )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(scratch: Path, places: Places) -> AsyncIterator[Slipway]:
    executor = ["--registry-certificates", str(scratch / "certs.d"), "--log-level", "debug"]
    api = ["--docker-config", str(places.config), "--log-level", "debug"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROGRAM_ENVIRONMENT, "PATH", f"{places.helper.parent}:{os.environ['PATH']}")
        async with installed(scratch, executor=executor, api=api) as made:
            yield made


@pytest.fixture(autouse=True)
def logged_out(places: Places) -> Iterator[None]:
    places.write({})
    yield
    places.write({})


def image(name: str, *, layers: int = 1, size: int = 50_000) -> BuiltImage:
    own = [
        tar([directory("own"), member(f"own/{name}{number}", random.Random(f"{name}{number}").randbytes(size))])
        for number in range(layers)
    ]
    return BuiltImage(layers=[*busybox_image().layers, *own], config={"Cmd": ["ls", "/own"]})


async def load(engine: Slipway, name: str, built: BuiltImage) -> str:
    archive = docker_archive(built)
    chunks = (pb.LoadImageRequest(chunk=archive[at : at + CHUNK]) for at in range(0, len(archive), CHUNK))
    image_id = (await engine.images.LoadImage(chunks, timeout=60)).images[0].id
    await engine.images.TagImage(pb.TagImageRequest(image=image_id, target=name))
    return image_id


async def push(
    engine: Slipway, name: str, shown: pb.RegistryCredentials | None = None, *, source: str = ""
) -> dict[str, int]:
    """The last phase of each layer."""
    if source:
        await engine.images.TagImage(pb.TagImageRequest(image=source, target=name))
    call = engine.images.PushImage(pb.PushImageRequest(image=name, credentials=shown), timeout=60)
    return {each.progress.digest: each.progress.phase async for each in call if each.HasField("progress")}


async def pull(engine: Slipway, name: str, shown: pb.RegistryCredentials | None = None) -> str:
    call = engine.images.PullImage(pb.PullImageRequest(reference=name, credentials=shown), timeout=60)
    return [answer async for answer in call][-1].image.image.id


async def remove(engine: Slipway, image_id: str) -> None:
    await engine.images.RemoveImage(pb.RemoveImageRequest(image=image_id, force=True), timeout=30)


async def refusal(engine: Slipway, name: str, shown: pb.RegistryCredentials | None = None) -> tuple[str, str]:
    """Code and reason."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pull(engine, name, shown)
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]  # it has the metadata
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert name.partition("/")[0] in status.message
    return raised.value.code().name, info.reason


@pytest.mark.parametrize("kind", KINDS)
async def test_push_mount_pull_and_what_skopeo_says(engine: Slipway, places: Places, scratch: Path, kind: str) -> None:
    place = places.registries[kind]
    shown = None if kind == "anonymous" else LOGIN
    first, second, third = (f"{place.host}/team/{name}:1" for name in ("one", "two", "three"))
    image_id = await load(engine, first, image(kind))
    assert set((await push(engine, first, shown)).values()) == {pb.LAYER_PHASE_DONE}
    assert set((await push(engine, second, shown, source=first)).values()) == {pb.LAYER_PHASE_MOUNTED}
    assert set((await push(engine, second, shown)).values()) == {pb.LAYER_PHASE_EXISTS}
    await remove(engine, image_id)
    copied = scratch / f"copied-{kind}"
    await skopeo("copy", *place.reading, f"docker://{second}", f"dir:{copied}")
    await skopeo("copy", *place.writing, f"dir:{copied}", f"docker://{third}")
    for name in (second, third):
        assert await pull(engine, name, shown) == image_id
    await remove(engine, image_id)


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_without_a_login_and_with_a_wrong_one(engine: Slipway, places: Places, kind: str) -> None:
    name = f"{places.registries[kind].host}/team/closed:1"
    wrong = pb.RegistryCredentials(username=USER, password="wrong")
    for shown in (None, wrong, pb.RegistryCredentials(registry_token="a.b.c")):
        assert await refusal(engine, name, shown) == ("UNAUTHENTICATED", "REGISTRY_LOGIN_REFUSED")
    assert (await refusal(engine, name, LOGIN))[1] == "IMAGE_NOT_FOUND"


async def test_what_a_login_may_not_is_denied(engine: Slipway, places: Places) -> None:
    host = places.registries["token"].host
    reader = pb.RegistryCredentials(username="reader", password=HELPED)
    assert await refusal(engine, f"{host}/team/closed:1", reader) == ("PERMISSION_DENIED", "REGISTRY_ACCESS_DENIED")
    # Whom nobody knows may have what is everybody's.
    name = f"{host}/public/box:1"
    image_id = await load(engine, name, image("public"))
    await push(engine, name)
    await remove(engine, image_id)
    assert await pull(engine, name) == image_id
    await remove(engine, image_id)


async def test_a_layer_is_sent_when_it_may_not_be_mounted(engine: Slipway, places: Places) -> None:
    host = places.registries["token"].host
    first, second = f"{host}/team/own:1", f"{host}/public/own:1"
    built = image("unmounted")
    image_id = await load(engine, first, built)
    await push(engine, first, LOGIN)
    assert (await push(engine, second, source=first))[digest(built.layers[-1])] == pb.LAYER_PHASE_DONE
    await remove(engine, image_id)
    assert await pull(engine, second) == image_id
    await remove(engine, image_id)


@pytest.mark.parametrize("kind", ["password", "token"])
async def test_logins_out_of_dockers_config(engine: Slipway, places: Places, kind: str) -> None:
    name = f"{places.registries[kind].host}/team/config:1"
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    image_id = await load(engine, name, image(f"config{kind}"))
    places.login(kind, {"auth": packed})
    await push(engine, name)
    entries = [{"auth": packed}, {"username": USER, "password": PASSWORD}]
    if kind == "token":
        entries.append({"identitytoken": IDENTITY})
        entries.append({"registrytoken": places.issuer.issued[-1]})
    for entry in entries:
        places.login(kind, entry)
        await remove(engine, image_id)
        assert await pull(engine, name) == image_id
    # What the request shows goes first.
    wrong = pb.RegistryCredentials(username=USER, password="wrong")
    assert (await refusal(engine, name, wrong))[1] == "REGISTRY_LOGIN_REFUSED"
    await remove(engine, image_id)


@pytest.mark.parametrize("kind", ["password", "tls", "token"])
async def test_logins_from_a_helper(engine: Slipway, places: Places, kind: str) -> None:
    host = places.registries[kind].host
    name = f"{host}/team/helped:1"
    answer = json.dumps({"ServerURL": host, "Username": USER, "Secret": PASSWORD})
    script = f"""#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = "{host}" ] || exit 3\ncat <<'END'\n{answer}\nEND\n"""
    places.helper.write_text(script)
    places.helper.chmod(0o755)
    places.write({"credHelpers": {host: "tests"}})
    image_id = await load(engine, name, image(f"helped{kind}"))
    await push(engine, name)
    await remove(engine, image_id)
    assert await pull(engine, name) == image_id
    await remove(engine, image_id)
    places.helper.write_text(f"#!/bin/sh\necho {HELPED}; echo {HELPED} >&2; exit 1\n")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await pull(engine, name)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert HELPED not in str(raised.value.details())


class Waits:
    """Keeps the first request of a kind for a blob back until the token that it shows is no good any more."""

    def __init__(self, method: bytes, life: float) -> None:
        self.method = method
        self.life = life
        self.kept = 0

    async def __call__(self, head: bytes) -> None:
        if head.startswith(self.method) and b"/blobs/" in head and b"Bearer" in head and not self.kept:
            self.kept += 1
            await asyncio.sleep(self.life + 1.1)  # whole seconds are what tokens count in


@pytest.mark.parametrize("way", ["pull", "push"])
async def test_a_token_that_expires_meanwhile_is_renewed(engine: Slipway, places: Places, way: str) -> None:
    place, issuer = places.registries["token"], places.issuer
    built = image(f"expires{way}", layers=LAYERS)
    direct = f"{place.host}/team/expires{way}:1"
    waits = Waits(b"GET " if way == "pull" else b"PATCH ", 5.0)
    async with relay(place.host, waits) as between:
        image_id = await load(engine, direct, built)
        if way == "pull":
            await push(engine, direct, LOGIN)
            await remove(engine, image_id)
        issuer.life, before = waits.life, len(issuer.issued)
        try:
            name = direct.replace(place.host, between)
            if way == "pull":
                assert await pull(engine, name, LOGIN) == image_id
            else:
                await push(engine, name, LOGIN, source=image_id)
        finally:
            issuer.life = 300.0
    assert waits.kept == 1
    assert len(issuer.issued) - before >= 2
    await remove(engine, image_id)
    assert await pull(engine, direct, LOGIN) == image_id
    await remove(engine, image_id)


async def test_no_secret_is_stored_or_logged(engine: Slipway, places: Places) -> None:
    """After all of the above, which showed each of them to both services."""
    name = f"{places.registries['token'].host}/team/none:1"
    for shown in (LOGIN, pb.RegistryCredentials(identity_token=IDENTITY)):
        assert (await refusal(engine, name, shown))[1] == "IMAGE_NOT_FOUND"
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    issued = [part.encode() for token in places.issuer.issued for part in (token, token.rpartition(".")[2])]
    secrets = [PASSWORD.encode(), IDENTITY.encode(), HELPED.encode(), packed, *issued]
    assert len(issued) > 20
    roots = [Path(f"/var/lib/slipway-{engine.instance}"), Path(f"/run/slipway-{engine.instance}")]
    files = [path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name.endswith(".db") for path in files)
    looked = 0
    for path in (*files, engine.executor.log, engine.api.log):
        try:
            content = path.read_bytes()
        except OSError as error:
            assert error.errno == errno.EINVAL, path  # a namespace that is pinned there
            continue
        looked += len(content)
        assert not [secret for secret in secrets if secret in content], path
    assert looked > 1 << 20
    for log in (engine.executor.log, engine.api.log):
        assert b"PullImage" in log.read_bytes()  # there is something that could have them
