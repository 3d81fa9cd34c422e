"""A real registry that speaks TLS: with an authority of its own, and a certificate of ours that it wants to see."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import trustme
from slipway.v1 import image_service_pb2 as pb

from executor_service.run import run
from tests.fixtures.registry import Registry, Tls, registry
from tests.fixtures.slipway import Slipway, installed

ADDRESS = "192.0.2.1"  # RFC 5737; it is in the test's own network namespace

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="no registry here"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def place(scratch: Path, authority: trustme.CA) -> AsyncIterator[Registry]:
    # Not a loopback address, which would be spoken to without TLS.
    await run(["ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo"], timeout=60)
    server = authority.issue_cert(ADDRESS)
    clients = scratch / "clients.pem"
    tls = Tls(certificate=scratch / "server.pem", key=scratch / "server.key", clients=clients)
    server.cert_chain_pems[0].write_to_path(tls.certificate)
    server.private_key_pem.write_to_path(tls.key)
    authority.cert_pem.write_to_path(clients)
    async with registry(scratch / "registry", address=ADDRESS, tls=tls) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(scratch: Path) -> AsyncIterator[Slipway]:
    flags = ["--registry-certificates", str(scratch / "certs.d")]
    async with installed(scratch, executor=flags) as made:
        yield made


@pytest.fixture
def shown(scratch: Path, place: Registry) -> Iterator[Path]:
    """The directory of this registry's certificates, empty."""
    made = scratch / "certs.d" / place.host
    made.mkdir(parents=True)
    yield made
    shutil.rmtree(made.parent)


async def push(engine: Slipway, place: Registry) -> str:
    name = f"{place.host}/team/app:1"
    await engine.images.TagImage(pb.TagImageRequest(image="busybox", target=name))
    call = engine.images.PushImage(pb.PushImageRequest(image=name), timeout=60)
    return [answer async for answer in call][-1].image.digest


async def refusal(engine: Slipway, place: Registry) -> grpc.aio.AioRpcError:
    request = pb.PullImageRequest(reference=f"{place.host}/team/app:1")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        _ = [answer async for answer in engine.images.PullImage(request, timeout=60)]
    return raised.value


async def test_its_authority_and_our_certificate_open_it(
    engine: Slipway, place: Registry, shown: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(shown / "authority.crt")
    own = authority.issue_cert("node.test")
    own.cert_chain_pems[0].write_to_path(shown / "node.cert")
    own.private_key_pem.write_to_path(shown / "node.key")
    digest = await push(engine, place)
    call = engine.images.PullImage(pb.PullImageRequest(reference=f"{place.host}/team/app@{digest}"), timeout=60)
    assert [answer async for answer in call][-1].image.digest == digest


@pytest.mark.parametrize(("given", "said"), [([], "CERTIFICATE_VERIFY_FAILED"), (["authority.crt"], "TLS: ")])
async def test_without_one_of_them_it_is_not_reached(
    engine: Slipway, place: Registry, shown: Path, authority: trustme.CA, given: list[str], said: str
) -> None:
    for name in given:
        authority.cert_pem.write_to_path(shown / name)
    elsewhere = shown.parent / "other.test"
    elsewhere.mkdir()
    authority.cert_pem.write_to_path(elsewhere / "authority.crt")
    error = await refusal(engine, place)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert said.lower() in str(error.details()).lower()


@pytest.mark.parametrize(("name", "text"), [("wrong.crt", "no certificate"), ("lonely.cert", "no key beside it")])
async def test_a_file_that_cannot_be_used_is_named(
    engine: Slipway, place: Registry, shown: Path, name: str, text: str
) -> None:
    (shown / name).write_text(text)
    error = await refusal(engine, place)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert name in str(error.details())
