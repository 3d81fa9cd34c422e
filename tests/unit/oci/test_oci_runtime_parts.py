"""Small parts of the runtime: what runtimes say, which are known, cgroup layouts, conmon's command line and answers."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Internal, InvalidArgument, Unimplemented
from executor_service.oci.cgroups import CgroupLayout, CgroupTree, detect_layout
from executor_service.oci.conmon import conmon_argv, parse_sync
from executor_service.oci.processes import (
    open_process,
    parent_of,
    read_process,
    send_signal,
    session_of,
    wait_ended,
)
from executor_service.oci.runtime import Bundle
from executor_service.oci.runtimes import RuntimeBinary, RuntimeCatalog, RuntimeKind
from executor_service.oci.start_errors import start_failed

RUNC = 'time="2026-01-01T00:00:00Z" level=warning msg="noise"\ntime="x" level=error msg="{}"\n'
CREATE = "runc create failed: unable to start container process: "


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("executable file `/x` not found in $PATH: No such file or directory\n", 127),
        ("open executable: Permission denied\n", 126),
        ("open executable: Operation not permitted\n", 126),
        ("open executable: Not a directory\n", 127),
        ("mount `/etc` to `etc/passwd`: Not a directory\n", 127),
        ("mount `/gone` to `data`: No such file or directory\n", 128),
        (RUNC.format(CREATE + 'exec: \\"/x\\": stat /x: no such file or directory'), 127),
        (RUNC.format(CREATE + 'exec: \\"/x\\": permission denied'), 126),
        (RUNC.format(CREATE + 'exec: \\"/x\\": is a directory'), 126),
        (RUNC.format("something else"), 128),
        ('{"level":"error","msg":"exec: \\"/x\\": executable file not found in $PATH","time":"t"}', 127),
        ("", 128),
    ],
)
def test_the_exit_code_of_a_failed_start(text: str, code: int) -> None:
    failure = start_failed("id", text, command="/x")
    assert failure.exit_code == code
    assert "level=" not in failure.message
    assert "time=" not in failure.message


def executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_crun_comes_before_runc(tmp_path: Path) -> None:
    runc = executable(tmp_path / "runc")
    assert RuntimeCatalog.probe(search_path=str(tmp_path)).resolve("").path == runc
    executable(tmp_path / "crun")
    catalog = RuntimeCatalog.probe(search_path=str(tmp_path))
    assert catalog.resolve("").kind is RuntimeKind.CRUN
    assert catalog.resolve("runc").kind is RuntimeKind.RUNC


def test_an_unknown_runtime_lists_what_is_known(tmp_path: Path) -> None:
    executable(tmp_path / "crun")
    mine = executable(tmp_path / "mine")
    catalog = RuntimeCatalog.probe(configured={"kata": str(mine)}, search_path=str(tmp_path))
    assert catalog.resolve("kata").kind is RuntimeKind.OTHER
    with pytest.raises(InvalidArgument, match="known are: crun, kata"):
        catalog.resolve("gvisor")
    with pytest.raises(InvalidArgument):
        RuntimeCatalog.probe(default="gvisor", search_path=str(tmp_path))


def test_a_runtime_that_cannot_run_is_told_at_start_up(tmp_path: Path) -> None:
    with pytest.raises(Unimplemented, match="no OCI runtime"):
        RuntimeCatalog.probe(search_path=str(tmp_path))
    (tmp_path / "plain").write_text("")
    for path in ("plain", str(tmp_path / "plain"), str(tmp_path)):
        with pytest.raises(InvalidArgument, match="absolute path"):
            RuntimeCatalog.probe(configured={"x": path}, search_path=str(tmp_path))


TMPFS = "30 1 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
PIDS = "31 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
UNIFIED = "32 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
V2 = "30 1 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "layout", "hierarchies"),
    [
        (V2, CgroupLayout.V2, {"/sys/fs/cgroup"}),
        (TMPFS + PIDS, CgroupLayout.V1, {"/sys/fs/cgroup/pids"}),
        (TMPFS + PIDS + UNIFIED, CgroupLayout.HYBRID, {"/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"}),
        # A second tmpfs over all of it, as in the mount namespace of the runtime.
        (TMPFS + PIDS + UNIFIED + TMPFS + PIDS, CgroupLayout.V1, {"/sys/fs/cgroup/pids"}),
    ],
)
def test_cgroup_layouts(tmp_path: Path, mountinfo: str, layout: CgroupLayout, hierarchies: set[str]) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(mountinfo)
    assert detect_layout(file) is layout
    assert {str(path) for path in CgroupTree.probe(file).hierarchies} == hierarchies


def test_a_host_without_cgroups(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("1 0 0:1 / / rw - ext4 /dev/vda rw\n")
    with pytest.raises(Unimplemented, match="no cgroups"):
        detect_layout(tmp_path / "mountinfo")


@pytest.mark.parametrize("path", ["", "/", "relative", "/..", "/a/../b", "/a//b", "/a\n"])
def test_nothing_but_a_plain_cgroup_is_ever_removed(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not the path"):
        CgroupTree(hierarchies=(tmp_path,)).directories(path)


def test_cgroups_are_removed_from_the_inside(tmp_path: Path) -> None:
    (tmp_path / "p/x/inner/most").mkdir(parents=True)
    tree = CgroupTree(hierarchies=(tmp_path,))
    tree.remove("/p/x", timeout=0)
    assert list((tmp_path / "p").iterdir()) == []
    tree.remove("/p/x", timeout=0)


def test_conmons_command_line() -> None:
    bundle = Bundle(
        container_id="ab" * 32,
        directory=Path("/b"),
        config={},
        log_path=Path("/l/log"),
        log_size_limit=0,
        terminal=False,
    )
    crun = RuntimeBinary(name="crun", path=Path("/usr/bin/crun"), kind=RuntimeKind.CRUN)
    argv = conmon_argv(Path("/c"), bundle, runtime=crun, state_root=Path("/s"))
    assert argv[argv.index("--log-path") + 1] == "k8s-file:/l/log"
    assert "--log-size-max" not in argv
    assert "--terminal" not in argv
    argv = conmon_argv(
        Path("/c"), replace(bundle, log_size_limit=5, terminal=True), runtime=crun, state_root=Path("/s")
    )
    assert argv[argv.index("--log-size-max") + 1] == "5"
    assert "--terminal" in argv


def test_conmons_answers(tmp_path: Path) -> None:
    nothing = tmp_path / "none"
    assert parse_sync(b'{"data": 42}\n', diagnostics=nothing).pid == 42
    assert parse_sync(b'{"data": -1, "message": "no\tsuch"}\n', diagnostics=nothing).error == "no\tsuch"
    (tmp_path / "log").write_text("[conmon:e]: broken\n")
    assert parse_sync(b"", diagnostics=tmp_path / "log").error == "[conmon:e]: broken"
    assert "ended before" in parse_sync(b"", diagnostics=nothing).error
    with pytest.raises(Internal, match="not understood"):
        parse_sync(b"nonsense\n", diagnostics=nothing)


async def test_processes_are_told_apart_by_their_start() -> None:
    with subprocess.Popen(["sleep", "100"]) as child:  # noqa: ASYNC220 - the processes read are anybody's
        process = read_process(child.pid)
        assert process is not None
        assert parent_of(child.pid) != 0
        assert session_of(child.pid) == session_of(parent_of(child.pid))
        mistaken = replace(process, start_time=process.start_time + 1)
        assert open_process(mistaken) is None
        assert not send_signal(mistaken, signal.SIGKILL)
        await wait_ended(mistaken)
        assert read_process(child.pid) == process
        assert send_signal(process, signal.SIGKILL)
        await wait_ended(process)
        # A zombie has ended.
        assert read_process(child.pid) is None
        assert not send_signal(process, signal.SIGKILL)
