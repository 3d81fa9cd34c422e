"""The pinned mount namespace for crun on a hybrid cgroup host, made and entered on a machine of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.oci import MACHINES_NAMESPACE, UNAVAILABLE

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)

_ENTER = """
import asyncio, os, pathlib, sys
from executor_service import kernel
from executor_service.oci.cgroups import CgroupTree, detect_layout
from executor_service.oci.mount_namespace import enter_runtime_mount_namespace
from executor_service.oci.runtimes import RuntimeCatalog
from executor_service.storage.host_namespace import HostNamespace, node_mounts
from executor_service.storage.mount_tree import attach_tree, copy_tree
before, host = detect_layout(), HostNamespace(node_mounts())
entered = enter_runtime_mount_namespace(pathlib.Path(sys.argv[1]), RuntimeCatalog.probe(default=sys.argv[2]))
inode = os.stat("/proc/self/ns/mnt").st_ino
unified = any(path.name == "unified" for path in CgroupTree.probe().hierarchies)
seen = os.path.exists(sys.argv[1] + "/seen/file")
if entered:
    # As for a bind of `/`: from the machine's namespace into the one that is pinned below.
    tree = asyncio.run(host.run(lambda: copy_tree(os.open(sys.argv[1], os.O_PATH), recursive=True)))
    place = pathlib.Path(sys.argv[1] + f"/place-{os.getpid()}")
    place.mkdir()
    attach_tree(tree, place)
    seen = seen and (place / "seen/file").exists()
    kernel.detach_tree(os.fsencode(place))
    place.rmdir()
print("RESULT", before, entered, inode, detect_layout(), unified, seen)
"""

_REMOVE = """
import pathlib, sys
from executor_service.oci.mount_namespace import remove_runtime_mount_namespace
remove_runtime_mount_namespace(pathlib.Path(sys.argv[1]))
remove_runtime_mount_namespace(pathlib.Path(sys.argv[1]))
"""

_MACHINE = """
set -eu
mount --make-rshared /
$PYTHON -c "$ENTER" "$RUN" crun
mkdir "$RUN/seen"; mount -t tmpfs none "$RUN/seen"; touch "$RUN/seen/file"
$PYTHON -c "$ENTER" "$RUN" crun
$PYTHON -c "$ENTER" "$RUN" runc
ls /sys/fs/cgroup/unified | grep -c cgroup.procs
$PYTHON -c "$REMOVE" "$RUN"
grep -c "$RUN/mntns" /proc/self/mountinfo || true
ls "$RUN"
"""


def test_one_namespace_for_every_executor_of_this_boot(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHON": sys.executable, "ENTER": _ENTER, "REMOVE": _REMOVE, "RUN": str(tmp_path)}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    # A slave of the namespace in which the test run began stands for a machine, and vanishes with the test.
    argv = [
        "nsenter",
        f"--mount={MACHINES_NAMESPACE}",
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-c",
        _MACHINE,
    ]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, second, runc = (line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT"))
    if first[0] != "hybrid":
        assert first[1] == "False"
        pytest.skip("the machine's cgroups are not hybrid: no namespace is needed, and none was made")
    assert first[:2] == ["hybrid", "True"]
    assert first[3:] == ["v1", "False", "False"]
    # The second executor is in the same namespace, and sees what the machine mounted since, also in a copy of that.
    assert second == ["hybrid", "True", first[2], "v1", "False", "True"]
    assert runc[:2] == ["hybrid", "False"]
    assert runc[2] != first[2]
    # The machine's own view is untouched, and after removal nothing is left.
    assert done.stdout.split("\n")[-4:-1] == ["1", "0", "seen"]
