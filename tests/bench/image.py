"""The image both engines run: the machine's own static busybox and as many of its names as the benchmark needs.

Docker's unpacker gives a hard link's mode to the file it links to, and refuses a layer that names a path twice; the
links here are symbolic and each path stands once, so both engines lay out the same files.
"""

from __future__ import annotations

from tests.bench.engine import IMAGE
from tests.fixtures.busybox import BUSYBOX
from tests.fixtures.images import BuiltImage, directory, docker_archive, member, symlink, tar

_APPLETS = ("sh", "sleep")


def archive() -> bytes:
    """As `docker save` writes it; named IMAGE."""
    layer = [
        directory("bin/"),
        member("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in _APPLETS),
        directory("etc/"),
        member("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"),
        member("etc/group", b"root:x:0:\n"),
    ]
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    return docker_archive(BuiltImage(layers=[tar(layer)], config=config, names=[IMAGE]))
