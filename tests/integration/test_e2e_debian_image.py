"""A real distribution as an image of several layers: pulled from a registry, run, and its root compared file by file
with what another unpacker, umoci, makes of the same image."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import stat
import struct
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import image_service_pb2 as image_pb

from tests.fixtures.debian import MirrorUnavailableError, debian_root
from tests.fixtures.file_trees import differences, tree
from tests.fixtures.images import CREATED, BuiltImage, descriptor, directory, hardlink, member, symlink, tar
from tests.fixtures.random_layers import random_layers
from tests.fixtures.registry import Registry, registry
from tests.fixtures.slipway import Slipway

TOOLS = ("docker-registry", "skopeo", "umoci", "debootstrap")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
]

# What is in every container beside its image: mount points, and what Docker's init layer adds.
_CHURNED = 36  # layers
NOT_THE_IMAGES = {"/dev", "/proc", "/sys", "/.dockerenv", "/etc/mtab"}
TOUCHED = ("/", "/etc")  # by adding those
KINDS = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO}
NET_BIND_SERVICE = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # a file's capabilities, capabilities(7)


def xattr(name: str, value: str) -> dict[str, str]:
    return {f"SCHILY.xattr.{name}": value}


def additions() -> bytes:
    """What Debian's root lacks."""
    capable = NET_BIND_SERVICE.decode("latin-1").encode("latin-1").decode("utf-8", "surrogateescape")
    return tar(
        [
            directory("more", mode=0o1777, pax=xattr("user.of", "a directory")),
            member("more/first", b"linked", uid=1234, gid=4321, pax={"mtime": "1600000000.123456789"}),
            hardlink("more/second", "more/first"),
            hardlink("more/third", "more/first"),
            member("more/noted", b"x", pax={**xattr("user.note", "one"), **xattr("user.other", "two")}),
            member("more/capable", b"#!/bin/sh\n", mode=0o755, pax=xattr("security.capability", capable)),
            member("more/setuid", b"", mode=0o6755, uid=65534, gid=65534),
            member("more/null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
            member("more/disk", kind=tarfile.BLKTYPE, device=(7, 200), mode=0o600),
            member("more/fifo", kind=tarfile.FIFOTYPE, mode=0o640, gid=7),
            symlink("more/dangling", "/nowhere/at/all"),
            directory("more/closed", mode=0o700, uid=99),
            member("more/closed/" + "n" * 255, b"long"),
            *(directory("more" + "/deeper-than-that" * depth) for depth in range(1, 12)),
            member("more" + "/deeper-than-that" * 12, b"far"),
            member("more/\u00fcml\u00e4ut \n\t'\"", b"odd"),
            directory("more/goes"),
            member("more/goes/away", b""),
            member("more/becomes-directory", b""),
            directory("more/becomes-file"),
            member("more/becomes-file/in", b""),
            symlink("more/becomes-real", "closed"),
            directory("more/opaque"),
            member("more/opaque/below", b"below"),
        ]
    )


def removals() -> bytes:
    """Whiteouts, opaque directories, and kinds that change."""
    return tar(
        [
            directory("usr"),
            directory("usr/share"),
            member("usr/share/.wh.doc"),
            directory("usr/share/zoneinfo"),
            member("usr/share/zoneinfo/.wh..wh..opq"),
            member("usr/share/zoneinfo/Here", b"only"),
            directory("etc"),
            member("etc/.wh.issue"),
            member("etc/hello", b"from above", mode=0o600),
            directory("more", mode=0o755),
            member("more/.wh.second"),
            member("more/.wh.goes"),
            directory("more/becomes-directory", mode=0o711),
            member("more/becomes-directory/in", b"it"),
            member("more/.wh.becomes-file"),
            directory("more/becomes-real"),
            member("more/becomes-real/file", b"not in closed"),
            directory("more/opaque", mode=0o750),
            member("more/opaque/.wh..wh..opq"),
            member("more/opaque/above", b"above"),
        ]
    )


def again() -> bytes:
    """What was removed comes back as something else."""
    return tar(
        [
            directory("more", mode=0o755),
            member("more/becomes-file", b"a file now"),
            directory("more/goes", mode=0o500),
            member("more/goes/back", b""),
            hardlink("more/goes/also", "more/goes/back"),
        ]
    )


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """In memory: unpacking to a disk takes many times as long."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def source(scratch: Path) -> AsyncIterator[Registry]:
    async with registry(scratch / "registry") as made:
        yield made


@pytest.fixture(scope="module")
def layout(pytestconfig: pytest.Config, scratch: Path) -> Path:
    """The image as an OCI layout, with the name `debian`."""
    assert pytestconfig.cache is not None
    try:
        base = debian_root(pytestconfig.cache.mkdir("debian-root"), scratch)
    except MirrorUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    made = scratch / "layout"
    blobs = made / "blobs/sha256"
    blobs.mkdir(parents=True)
    write_layout(made, base, [additions(), removals(), again(), *random_layers(_CHURNED, seed=1)])
    return made


def write_layout(made: Path, base: Path, layers: Sequence[bytes]) -> None:
    with base.open("rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    shutil.copyfile(base, made / "blobs" / diff_id.replace(":", "/"))
    kind = "application/vnd.oci.image.layer.v1.tar"
    described = [{"mediaType": kind, "digest": diff_id, "size": base.stat().st_size}]
    described += [descriptor(layer, kind) for layer in layers]
    config = json.loads(BuiltImage(layers=layers, config={"Cmd": ["bash"]}).config_json)
    config["rootfs"]["diff_ids"].insert(0, diff_id)
    config["history"].insert(0, {"created": CREATED, "created_by": "debootstrap"})
    packed = json.dumps(config).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(packed, "application/vnd.oci.image.config.v1+json"),
            "layers": described,
        }
    ).encode()
    for blob in (packed, manifest, *layers):
        (made / "blobs/sha256" / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    named = {"org.opencontainers.image.ref.name": "debian"}
    index = {**descriptor(manifest, "application/vnd.oci.image.manifest.v1+json"), "annotations": named}
    (made / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
    (made / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


async def program(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


def mounted(pid: int) -> set[str]:
    """Where something is mounted in its root, below which nothing is the image's."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines} - {"/"}


async def test_root_is_what_another_unpacker_makes_of_it(
    engine: Slipway, source: Registry, layout: Path, scratch: Path
) -> None:
    name = f"{source.host}/debian:test"
    copying = ("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:debian")
    await program(*copying, f"docker://{name}")
    unpacking = program("umoci", "unpack", "--image", f"{layout}:debian", str(scratch / "bundle"))
    request = pb.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image=name, cmd=["bash", "-c", "dpkg --version; exec sleep 600"])
    )
    created, _ = await asyncio.gather(engine.containers.CreateContainer(request, timeout=120), unpacking)
    image = (await engine.images.InspectImage(image_pb.InspectImageRequest(image=name))).image
    assert len(image.layers) == 4 + _CHURNED
    await engine.start(created.id)
    pid = (await engine.inspect(created.id)).state.pid
    other = NOT_THE_IMAGES | mounted(pid)
    expected = tree(scratch / "bundle/rootfs", without=other)
    found = tree(Path(f"/proc/{pid}/root"), without=other)
    assert len(expected) > 4000
    assert len(expected["/more/goes/back"].links) == 1
    churned = [entry for path, entry in expected.items() if path.startswith("/churn/")]
    assert {stat.S_IFMT(entry.mode) for entry in churned} == KINDS
    assert sum(bool(entry.links) for entry in churned) > 10
    assert sum(bool(entry.attributes) for entry in churned) > 20
    assert expected["/more/null"].content == "1:3"
    assert expected["/more/capable"].attributes == {"security.capability": NET_BIND_SERVICE}
    for tree_ in (expected, found):
        tree_.update({path: dataclasses.replace(tree_[path], mtime=0) for path in TOUCHED})
    assert differences(found, expected) == []
    assert "Debian 'dpkg'" in (await engine.logs(created.id)).decode()
    await engine.remove(created.id)
