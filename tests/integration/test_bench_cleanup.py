"""The benchmark ends and removes what it started, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import processes
from tests.bench.memory import read_memory
from tests.bench.network_namespace import NetworkNamespace, await_ready, network_namespace
from tests.bench.workspace import LeftoverError, workspace
from tests.fixtures.slipway import leftovers

_CGROUP = f"slipway-bench-test-{os.getpid()}"
# A daemon that ignores SIGTERM and whose child has a network namespace of its own, as a container has.
_STUBBORN = 'trap "" TERM; unshare --net sleep 1000 & echo started; while :; do sleep 1000; done'


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        # A zombie waits for its parent and is no process any more.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _wait_for_children(namespace: NetworkNamespace, log: Path, daemon: subprocess.Popen[bytes]) -> set[int]:
    def containers() -> set[int]:
        members = namespace.processes()
        return processes.descendants(members) - members

    await_ready(lambda: bool(containers()), daemons=[(daemon, log)], timeout=60)
    return namespace.processes() | containers()


@pytest.mark.parametrize("failure", [None, RuntimeError, KeyboardInterrupt])
def test_a_stubborn_daemon_and_what_it_started_are_ended(tmp_path: Path, failure: type[BaseException] | None) -> None:
    log = tmp_path / "daemon.log"
    with workspace(tmp_path, cgroup_names=[_CGROUP]) as directory:
        file = directory / "netns"
        with network_namespace(file, patience=0.2) as namespace:
            with contextlib.nullcontext() if failure is None else pytest.raises(failure):  # noqa: SIM117 - reads in order
                with namespace.daemon(["sh", "-c", _STUBBORN], log=log) as daemon:
                    pids = _wait_for_children(namespace, log, daemon)
                    assert daemon.pid in pids
                    if failure is not None:
                        raise failure
            assert not namespace.processes()
    assert not [pid for pid in pids if _is_alive(pid)]
    assert not directory.exists()
    assert str(file) not in Path("/proc/self/mountinfo").read_text()


def test_a_daemon_s_mounts_are_not_the_host_s(tmp_path: Path) -> None:
    def mounts() -> list[str]:
        """Those of the namespace, and where daemons have one of their own; others come and go."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if line.split()[4] in {"/run", "/etc/docker"} or str(tmp_path) in line]

    before = mounts()
    ready = tmp_path / "ready"
    script = f"touch /run/private && touch {ready} && exec sleep 1000"
    with network_namespace(tmp_path / "netns") as namespace:
        with namespace.daemon(["sh", "-c", script], log=tmp_path / "log") as daemon:
            await_ready(ready.exists, daemons=[(daemon, tmp_path / "log")], timeout=60)
            assert Path(f"/proc/{daemon.pid}/root/run/private").exists()
        assert not Path("/run/private").exists()
    assert mounts() == before


def test_a_daemon_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    script = "echo no configuration; exit 3"
    with (
        network_namespace(tmp_path / "netns") as namespace,
        namespace.daemon(["sh", "-c", script], log=log) as daemon,
        pytest.raises(RuntimeError, match=r"daemon ended with status 3:\nno configuration"),
    ):
        await_ready(lambda: False, daemons=[(daemon, log)], timeout=60)


def test_a_mount_that_is_left_is_told_and_not_deleted_through(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    try:
        with (
            pytest.raises(LeftoverError, match=r"mount .*/left, directory"),
            workspace(tmp_path, cgroup_names=[]) as directory,
        ):
            left = directory / "left"
            left.mkdir()
            subprocess.run(["mount", "--bind", str(kept), str(left)], check=True)
        assert (kept / "file").exists()
    finally:
        subprocess.run(["umount", str(left)], check=True)


_SERVING = {"steps": 3, "recovery": 2}  # API services when all is up, by the part of the benchmark


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Not pytest's, which only root may pass."""
    with tempfile.TemporaryDirectory(prefix="bench-cleanup-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", _SERVING)
def test_an_interrupted_benchmark_of_clusters_leaves_nothing(tmp_path: Path, open_directory: Path, part: str) -> None:
    """By Ctrl-C, twice, as a terminal sends it: to every process that was started from there."""
    log = tmp_path / "log"
    argv = [sys.executable, "-m", "tests.bench.cluster", "--only", part, "--directory", str(open_directory)]
    with log.open("wb") as output:
        bench = subprocess.Popen(argv, stdout=output, stderr=output, start_new_session=True)
    try:
        await_ready(lambda: _serving(open_directory) == _SERVING[part], daemons=[(bench, log)], timeout=120)
        instances = _instances(open_directory)
        for _ in range(2):
            os.killpg(bench.pid, signal.SIGINT)
        assert bench.wait(120) == 130, log.read_text()
    finally:
        bench.kill()
        bench.wait()
    assert list(open_directory.iterdir()) == []
    assert not [argv for argv in _command_lines() if any(str(open_directory) in word for word in argv)]
    assert [found for instance in instances for found in leftovers(instance)] == []


def _serving(directory: Path) -> int:
    logs = directory.glob("slipway-bench-*/*/api*.log")
    return sum('"event": "serving"' in log.read_text() for log in logs)


def _instances(directory: Path) -> set[str]:
    """Of services whose files are there."""
    found = [argv for argv in _command_lines() if any(str(directory) in word for word in argv)]
    return {argv[argv.index("--instance") + 1] for argv in found if "--instance" in argv}


def _command_lines() -> list[list[str]]:
    lines = []
    for pid in processes.all_pids():
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0"))
    return lines


def test_memory_is_that_of_the_processes_asked_for() -> None:
    content = "x = b'1' * (32 << 20); print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", content], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reading = read_memory([process.pid])
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert read_memory([process.pid]).programs == {}
    (program,) = reading.programs.values()
    assert program.count == 1
    assert 32 << 20 < reading.pss < 64 << 20
