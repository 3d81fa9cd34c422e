"""Devices of a vendor's specification, seen from inside the containers that ask for them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import resources_pb2

from tests.fixtures.api import refused
from tests.fixtures.slipway import Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN = """
echo $GADGET $VENDOR
head -c 2 /dev/gadget | od -An -tx1
[ -c /dev/numbers ] && head -c 1 /dev/numbers | wc -c
(echo > /dev/gadget) 2>/dev/null || echo kept
cat /opt/vendor/file
(echo > /opt/vendor/file) 2>/dev/null || echo kept
grep -o '/opt/vendor [^ ]*' /proc/self/mounts
id -G
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    engine: Slipway
    directory: Path

    def write(self, **edits: object) -> None:
        devices = [{"name": "one", "containerEdits": edits}]
        said = {"cdiVersion": "0.7.0", "kind": "example.com/gadget", "devices": devices}
        (self.directory / "gadget.json").write_text(json.dumps(said))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    directory = tmp_path_factory.mktemp("cdi")
    async with installed(
        tmp_path_factory.mktemp("services"), executor=["--cdi-directories", json.dumps([str(directory)])]
    ) as engine:
        yield Node(engine=engine, directory=directory)


def asked(*names: str) -> list[resources_pb2.DeviceRequest]:
    return [resources_pb2.DeviceRequest(driver="cdi", device_ids=names)]


ONE = "example.com/gadget=one"


async def test_a_device_comes_with_all_its_specification_says(node: Node, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the vendor\n")
    random = Path("/dev/urandom").stat().st_rdev
    node.write(
        env=["GADGET=one", "VENDOR=example"],
        deviceNodes=[
            {"path": "/dev/gadget", "hostPath": "/dev/zero", "permissions": "r", "fileMode": 0o444},
            {"path": "/dev/numbers", "type": "c", "major": os.major(random), "minor": os.minor(random)},
        ],
        mounts=[{"hostPath": str(tmp_path), "containerPath": "/opt/vendor", "options": ["ro", "nosuid", "nodev"]}],
        hooks=[
            {
                "hookName": "createContainer",
                "path": "/bin/sh",
                "args": ["sh", "-c", f"cat > {tmp_path}/$NAME"],
                "env": ["NAME=state"],
            }
        ],
        additionalGIDs=[4711],
    )
    container = await node.engine.run(
        "sh", "-c", SEEN, config={"env": ["GADGET=none"]}, device_requests=asked(ONE), cap_drop=["ALL"]
    )
    assert (await node.engine.wait(container)).exit_code == 0
    said = (await node.engine.logs(container)).decode().splitlines()
    assert said[:6] == ["one example", " 00 00", "1", "kept", "from the vendor", "kept"]
    assert said[6].startswith("/opt/vendor ")
    assert "4711" in said[-1].split()
    assert json.loads((tmp_path / "state").read_text())["id"] == container
    shown = (await node.engine.inspect(container)).host_config.device_requests
    assert [(each.driver, list(each.device_ids)) for each in shown] == [("cdi", [ONE])]
    # The next start finds what the files say then.
    node.write(env=["GADGET=updated"])
    await node.engine.start(container)
    await node.engine.wait(container)
    assert (await node.engine.logs(container, tail=20)).decode().count("updated") == 1
    (node.directory / "gadget.json").unlink()
    refusal = await refused(node.engine.start(container))
    assert f"the node has no CDI device '{ONE}'" in refusal.message
    assert (await node.engine.inspect(container)).state.exit_code == 128
    await node.engine.remove(container)


async def test_what_the_node_has_not_and_what_is_hostile_is_refused_at_create(node: Node) -> None:
    node.write(env=["GADGET=one"])
    refusal = await refused(node.engine.create("true", device_requests=asked("example.com/gadget=two")))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"there are {ONE}" in refusal.violations["host_config.device_requests"]
    for edits, why in (
        ({"mounts": [{"hostPath": "/", "containerPath": "/proc/sys"}]}, "must not be in /proc"),
        ({"mounts": [{"hostPath": "/nowhere/at/all", "containerPath": "/x"}]}, "/nowhere/at/all"),
        ({"deviceNodes": [{"path": "/dev/../etc/passwd", "hostPath": "/dev/null"}]}, "must be an absolute path"),
        ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]}, "is no device"),
        ({"env": ["no value"]}, "must be KEY=value"),
    ):
        node.write(**edits)
        refusal = await refused(node.engine.create("true", device_requests=asked(ONE)))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert why in refusal.message
