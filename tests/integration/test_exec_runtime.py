"""Programs in running containers, through crun and runc: what they are, see, say and leave."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import FailedPrecondition, InvalidArgument, StartFailed
from executor_service.container import TerminalSize
from executor_service.limits import Rlimit
from executor_service.logs.record import Stream
from executor_service.oci.cgroup_moves import CgroupMoves
from executor_service.oci.exec_process import ExecProcessSpec
from executor_service.oci.exec_runtime import ExecStreams, ExecTarget, LeftExec, RunningExec
from executor_service.oci.processes import read_process
from executor_service.oci.runtime import Process
from executor_service.oci.runtime_execs import RuntimeExecs
from tests.fixtures.oci import DEADLINE, UNAVAILABLE, Container, Containers, containers_in, make_rootfs
from tests.fixtures.privileges import CAPABILITIES

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)

PATH = ("PATH=/bin",)
BOTH = ExecStreams(stdout=True, stderr=True)


@dataclass(slots=True, kw_only=True)
class Box:
    """A running container, and programs in it."""

    containers: Containers
    container: Container
    execs: RuntimeExecs
    target: ExecTarget
    numbers: list[int] = field(default_factory=lambda: [0])

    async def spawn(self, *args: str, streams: ExecStreams = BOTH, **options: Any) -> RunningExec:
        self.numbers[0] += 1
        process = ExecProcessSpec(args=args, **{"env": PATH, "capabilities": CAPABILITIES, **options})
        return await self.execs.spawn(self.target, f"{self.numbers[0]:064x}", process, streams)

    async def finish(self, running: RunningExec) -> tuple[int, bytes, bytes]:
        """Exit code, standard output, standard error."""
        written = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        try:
            async with asyncio.timeout(DEADLINE):
                while (chunk := await running.read()) is not None:
                    written[chunk[0]] += chunk[1]
                code = await running.ended
        finally:
            running.close()
            self.execs.forget(self.target.bundle, f"{self.numbers[0]:064x}")
        return code, bytes(written[Stream.STDOUT]), bytes(written[Stream.STDERR])

    async def run(self, *args: str, **options: Any) -> tuple[int, bytes, bytes]:
        return await self.finish(await self.spawn(*args, **options))

    async def read_until(self, running: RunningExec, text: bytes) -> bytes:
        seen = b""
        async with asyncio.timeout(DEADLINE):
            while text not in seen:
                chunk = await running.read()
                assert chunk is not None, seen
                seen += chunk[1]
        return seen


@asynccontextmanager
async def box(directory: Path, rootfs: Path, name: str) -> AsyncIterator[Box]:
    with containers_in(directory, rootfs, name) as containers:
        container = containers.make("sleep", "1000")
        created = await containers.start(container)
        runtime = containers.runtime
        target = ExecTarget(
            container_id=container.id, process=created.container, bundle=container.bundle.directory, runtime=name
        )
        descriptors = open_descriptors()
        moves = CgroupMoves(runtime.cgroups)
        opened = RuntimeExecs.open(catalog=runtime.catalog, state_root=runtime.state_root, moves=moves)
        try:
            async with opened as execs:
                yield Box(containers=containers, container=container, execs=execs, target=target)
            if moves.keeping is not None:
                await moves.keeping  # it has a file open now and then
            assert open_descriptors() <= descriptors
            assert not list((target.bundle / "execs").iterdir())
        finally:
            shutil.rmtree(target.bundle / "execs")
            await containers.delete(container)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_rootfs(tmp_path_factory.mktemp("rootfs"))
    (path / "home/user").mkdir()
    (path / "out").symlink_to("/proc/self/fd/9")
    (path / "home/link").symlink_to("/home/user")
    (path / "bin/noformat").write_bytes(b"\x00\x01")
    (path / "bin/noformat").chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_what_a_program_is_given(tmp_path: Path, rootfs: Path, name: str) -> None:
    async with box(tmp_path, rootfs, name) as made:
        assert await made.run("sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
        assert (await made.run("sh", "-c", "kill -9 $$"))[0] == 137
        script = "id -u; id -g; id -G; pwd; echo $HOME $A; cat /proc/self/oom_score_adj; ulimit -c"
        # Not RLIMIT_NOFILE: runc is a Go program, and Go raises that to its hard limit when it starts.
        limit = Rlimit(name="RLIMIT_CORE", soft=5120, hard=10240)  # bytes; the shell counts in 512
        given = {"user": "user", "working_dir": "/home/link", "env": (*PATH, "A=b"), "oom_score_adj": 300}
        _, said, _ = await made.run("sh", "-c", script, rlimits=(limit,), **given)
        score = "300" if name == "crun" else "0"  # runc takes that of the container, as whoever asks should
        assert said.decode().split("\n")[:-1] == [
            *("1000", "1000", "1000 2000", "/home/user", "/home/user b", score, "10")
        ]
        status = ("grep", "-E", "Cap(Eff|Bnd)|NoNewPrivs|Seccomp:", "/proc/self/status")
        _, said, _ = await made.run(*status, no_new_privileges=True, capabilities=("CAP_KILL",))
        assert said.split() == [
            *(b"CapEff:", b"0000000000000020", b"CapBnd:", b"0000000000000020", b"NoNewPrivs:", b"1"),
            *(b"Seccomp:", b"2"),
        ]
        # In the container's cgroup, with the standard descriptors and no other.
        _, said, _ = await made.run("sh", "-c", "cat /proc/1/cgroup | sort; cd /proc/$$/fd; echo *")
        cgroup, _, descriptors = said.decode().strip().rpartition("\n")
        assert descriptors.split()[:3] == ["0", "1", "2"]
        _, said, _ = await made.run("sh", "-c", "sort /proc/self/cgroup")
        assert said.decode().strip() == cgroup


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_what_cannot_be_run(tmp_path: Path, rootfs: Path, name: str) -> None:
    async with box(tmp_path, rootfs, name) as made:
        for args, code in (
            (("nothere",), 127),
            (("/bin/none/at/all",), 127),
            (("/etc/passwd",), 126),
            (("/etc",), 126),
        ):
            with pytest.raises(StartFailed) as raised:
                await made.spawn(*args)
            assert raised.value.exit_code == code, raised.value.message
        with pytest.raises(StartFailed, match="working directory '/nowhere'"):
            await made.spawn("true", working_dir="/nowhere")
        with pytest.raises(StartFailed, match="working directory '/out'"):
            await made.spawn("true", working_dir="/out")  # a link to a descriptor
        for hostile in ("/proc/self/fd/3", "/proc/self/cwd", "relative"):
            with pytest.raises(InvalidArgument):
                await made.spawn("true", working_dir=hostile)
        with pytest.raises(InvalidArgument, match="nobody-here"):
            await made.spawn("true", user="nobody-here")
        gone = replace(made.target, process=Process(pid=made.target.process.pid, start_time=1))
        with pytest.raises(FailedPrecondition, match="has ended"):
            await made.execs.spawn(gone, "f" * 64, ExecProcessSpec(args=("true",)), BOTH)


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_input_ends_and_a_flood_costs_no_memory(tmp_path: Path, rootfs: Path, name: str) -> None:
    async with box(tmp_path, rootfs, name) as made:
        counting = await made.spawn("wc", "-c", streams=ExecStreams(stdin=True, stdout=True))
        for _ in range(64):
            await counting.write(b"x" * 65536)
        await counting.end_input()
        assert await made.finish(counting) == (0, b"4194304\n", b"")
        # Whoever does not read makes the program wait, and it goes on where it was.
        flood = await made.spawn("sh", "-c", "head -c 20000000 /dev/zero; echo end >&2")
        done, _ = await asyncio.wait({flood.ended}, timeout=0.2)
        assert not done
        code, out, err = await made.finish(flood)
        assert (code, len(out), err) == (0, 20_000_000, b"end\n")
        # A child that keeps the pipe open does not keep the end waiting.
        if name == "crun":
            assert (await made.run("sh", "-c", "sleep 1000 & echo said"))[:2] == (0, b"said\n")


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_a_terminal(tmp_path: Path, rootfs: Path, name: str) -> None:
    async with box(tmp_path, rootfs, name) as made:
        script = "trap 'echo caught; exit 9' INT; tty; stty size; while read -r line; do stty size; done"
        shell = await made.spawn(
            *("sh", "-c", script),
            terminal=True,
            terminal_size=TerminalSize(height=33, width=44),
            streams=ExecStreams(stdin=True),
        )
        assert b"/dev/pts/" in await made.read_until(shell, b"33 44")
        shell.resize(TerminalSize(height=50, width=60))
        # runc passes the size on when it gets a signal, some time later.
        async with asyncio.timeout(DEADLINE):
            while True:
                await shell.write(b"\n")
                if b"50 " in await made.read_until(shell, b" "):
                    break
        await shell.write(b"\x03")
        code, said, _ = await made.finish(shell)
        assert (code, said[-8:]) == (9, b"caught\r\n")
        cat = await made.spawn("cat", terminal=True, streams=ExecStreams(stdin=True))
        await cat.write(b"unfinished")
        await cat.end_input()
        code, out, _ = await made.finish(cat)
        assert (code, out.count(b"unfinished")) == (0, 2)


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_probes_and_a_start_that_is_broken_off(tmp_path: Path, rootfs: Path, name: str) -> None:
    async with box(tmp_path, rootfs, name) as made:
        sure = ExecProcessSpec(args=("sh", "-c", "echo fine; echo odd >&2; exit 3"), env=PATH)
        outcome = await made.execs.run_probe(made.target, sure, timeout=DEADLINE, max_output=7)
        # Two pipes: what was written to which is read in no order.
        assert (outcome.exit_code, len(outcome.output)) == (3, 7)
        whole = await made.execs.run_probe(made.target, sure, timeout=DEADLINE, max_output=100)
        assert set(whole.output.split()) == {b"fine", b"odd"}
        slow = replace(sure, args=("sh", "-c", "echo waiting; exec sleep 60"))
        outcome = await made.execs.run_probe(made.target, slow, timeout=5, max_output=100)
        assert (outcome.exit_code, outcome.output) == (None, b"waiting\n")
        probing = asyncio.ensure_future(made.execs.run_probe(made.target, slow, timeout=60, max_output=100))
        await asyncio.sleep(0)  # it has begun
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        running = await made.spawn("sleep", "60")
        assert made.execs.left(made.target.bundle) == {
            f"{made.numbers[0]:064x}": LeftExec(process=running.process, detached=False)
        }
        assert running.signal(signal.SIGTERM)
        assert (await made.finish(running))[0] == 143
        assert read_process(running.process.pid) is None
        assert not running.signal(signal.SIGTERM)
