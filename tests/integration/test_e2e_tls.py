"""Both services as processes with certificates, over TCP: who may what, and what is exchanged while it is in use."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from common.certificates import main
from common.service_account import service_account
from tests.fixtures.api import refused
from tests.fixtures.certificates import replace
from tests.fixtures.free_ports import free_ports
from tests.fixtures.instance_names import new_instance
from tests.fixtures.slipway import Slipway, installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One node, behind TLS all the way."""

    authority: Path
    api: str
    engine: Slipway

    def issue(self, role: str, name: str) -> Path:
        return _issue(self.authority, role, name)

    def channel(self, directory: Path) -> grpc.aio.Channel:
        material = [(directory / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(self.api, grpc.ssl_channel_credentials(*material), options=options)


def _issue(authority: Path, role: str, name: str, *hosts: str) -> Path:
    out = authority.parent / f"{role}-{name}"
    more = [word for host in hosts for word in ("--host", host)]
    arguments = ["issue", "--authority", str(authority), "--role", role, "--name", name, "--out", str(out), *more]
    assert main(arguments) == 0
    return out


def _flags(directory: Path) -> list[str]:
    files = {"--tls-cert": "tls.crt", "--tls-key": "tls.key", "--tls-ca": "ca.crt"}
    return [word for flag, name in files.items() for word in (flag, str(directory / name))]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Not pytest's directory, which only root may pass: the API has dropped root when it reads its key."""
    directory = Path(tempfile.mkdtemp(prefix="slw-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster(scratch: Path) -> AsyncIterator[Cluster]:
    authority = scratch / "ca"
    assert main(["init", "--authority", str(authority)]) == 0
    node, api = _issue(authority, "executor", "n1"), _issue(authority, "api", "api1", "127.0.0.1")
    account = service_account()
    for path in (api, *api.iterdir()):
        os.chown(path, account.uid, account.gid)
    name = new_instance()
    executor_address, api_address = (f"127.0.0.1:{port}" for port in free_ports(2))
    executor_flags = ["--listen", executor_address, *_flags(node)]
    listen = ["--listen", api_address, "--listen", f"unix:///run/slipway-{name}/api.sock"]
    api_flags = ["--node", "n1", "--executor", executor_address, *listen, *_flags(api)]
    async with installed(scratch, instance=name, executor=executor_flags, api=api_flags) as engine:
        yield Cluster(authority=authority, api=api_address, engine=engine)


async def test_an_operator_runs_a_container_and_a_reader_looks(cluster: Cluster) -> None:
    async with cluster.channel(cluster.issue("operator", "ann")) as channel:
        ann = cluster.engine.on(channel)
        web = await ann.run("sh", "-c", "echo ready; exec sleep 300", name="web")
        async with cluster.channel(cluster.issue("reader", "bob")) as looking:
            bob = cluster.engine.on(looking)
            assert (await bob.inspect("web")).node == "n1"
            async for line in bob.log_lines("web", follow=True):
                assert line.data == b"ready\n"
                break
            refusal = await refused(bob.containers.StopContainer(pb.StopContainerRequest(container="web"), timeout=60))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")
        await ann.remove(web)


async def test_certificates_of_both_services_are_renewed_under_load(cluster: Cluster) -> None:
    """Neither is started again, no call fails, and both show what is new."""
    authority = cluster.authority.parent
    pids = (cluster.engine.api.pid, cluster.engine.executor.pid)
    done = asyncio.Event()
    calls = 0

    async def calling() -> None:
        nonlocal calls
        while not done.is_set():
            async with cluster.channel(authority / "operator-ann") as channel:
                ann = cluster.engine.on(channel)
                await ann.remove(await ann.create("true"))
            calls += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(calling())
        for number in range(1, 4):
            directories = [str(authority / "api-api1"), str(authority / "executor-n1")]
            assert main(["renew", "--authority", str(cluster.authority), *directories]) == 0
            for log in (cluster.engine.api.log, cluster.engine.executor.log):
                while log.read_text().count("TLS files taken") < number:
                    await asyncio.sleep(0.02)
            seen = calls
            while calls < seen + 4:
                await asyncio.sleep(0.02)
        done.set()
    assert pids == (cluster.engine.api.pid, cluster.engine.executor.pid)


async def test_an_api_whose_authority_is_no_longer_trusted_is_kept_out(cluster: Cluster, scratch: Path) -> None:
    """The node's containers run on; with the authority back, so is the node."""
    trusted = scratch / "executor-n1/ca.crt"
    kept = trusted.read_bytes()
    async with cluster.channel(scratch / "operator-ann") as channel:
        ann = cluster.engine.on(channel)
        await ann.run("sleep", "300", name="runs")
        assert main(["init", "--authority", str(scratch / "other")]) == 0
        replace(trusted, (scratch / "other/ca.crt").read_bytes())
        while (await ann.system.GetVersion(system_pb.GetVersionRequest(), timeout=60)).nodes[0].available:
            await asyncio.sleep(0.05)
        refusal = await refused(ann.containers.KillContainer(pb.KillContainerRequest(container="runs"), timeout=60))
        assert refusal.code == grpc.StatusCode.UNAVAILABLE
        assert refusal.reason in {"NODE_REFUSES", "NODE_UNAVAILABLE"}
        replace(trusted, kept)
        await ann.node_back()
        assert (await ann.inspect("runs")).state.running
        await ann.remove("runs")
