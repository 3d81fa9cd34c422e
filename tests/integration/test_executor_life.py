"""The executor as a process on the real kernel: the thin path, and what ends besides."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import grpc
import pytest
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import node_service_pb2
from slipway.executor.v1 import runtime_service_pb2 as pb

from tests.fixtures.executor import PROJECT, ExecutorProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_container_runs_and_ends_and_leaves_nothing(executor: ExecutorProcess) -> None:
    box = await executor.create("sh", "-c", "echo $HOME; hostname; cat /etc/hosts; echo oops >&2; exit 7")
    started = (await executor.run(box)).started
    assert started.pid > 0
    assert Path(started.netns_path).is_relative_to(executor.paths.netns)
    exited = await executor.exited(box)
    assert (exited.exited.exit_code, exited.exited.oom_killed, exited.exited.error) == (7, False, "")
    output = await executor.output(box)
    assert output.startswith(f"/root\n{box[:12]}\n".encode())
    assert f"{started.endpoints[0].ipv4_address}\t{box[:12]}".encode() in output
    assert output.endswith(b"oops\n")
    assert await executor.traceless() == []
    snapshot = await executor.snapshot(box)
    assert snapshot is not None
    assert (snapshot.phase, snapshot.last) == (pb.CONTAINER_PHASE_STOPPED, exited)
    await executor.remove(box)
    assert await executor.snapshot(box) is None
    assert not list(executor.paths.containers.iterdir())


async def test_two_runs_of_one_container_share_its_root(executor: ExecutorProcess) -> None:
    box = await executor.create("sh", "-c", "cat /mark 2>/dev/null; echo was here >/mark")
    for start_id in ("s1", "s2"):
        await executor.run(box, start_id)
        await executor.exited(box, start_id)
    assert await executor.output(box) == b"was here\n"


@pytest.mark.parametrize(
    ("args", "code"),
    [(["/nope"], 127), (["/etc/passwd"], 126), (["/etc"], 126)],
)
async def test_a_command_that_cannot_run_is_an_outcome(executor: ExecutorProcess, args: list[str], code: int) -> None:
    box = await executor.create(*args)
    entry = await executor.run(box)
    assert entry.start_failed.exit_code == code, entry
    assert args[0] in entry.start_failed.message
    assert await executor.traceless() == []
    assert await executor.run(box) == entry


async def test_an_unknown_user_is_an_outcome(executor: ExecutorProcess) -> None:
    spec = executor.spec("true")
    spec.user = "nemo"
    entry = await executor.run(await executor.create(spec=spec))
    assert entry.start_failed.exit_code == 128
    assert "nemo" in entry.start_failed.message
    assert await executor.traceless() == []


@pytest.mark.parametrize("mode", [spec_pb.NETWORK_MODE_HOST, spec_pb.NETWORK_MODE_NONE])
async def test_the_other_network_modes(executor: ExecutorProcess, mode: spec_pb.NetworkMode.ValueType) -> None:
    spec = executor.spec("sh", "-c", "ls /sys/class/net; readlink /proc/self/ns/net")
    spec.network_mode = mode
    del spec.endpoints[:]
    del spec.published_ports[:]
    box = await executor.create(spec=spec)
    started = (await executor.run(box)).started
    assert not started.endpoints
    await executor.exited(box)
    output = (await executor.output(box)).decode()
    hosts_own = str(Path("/proc/self/ns/net").readlink()) in output
    assert hosts_own == (mode == spec_pb.NETWORK_MODE_HOST)
    assert "eth0" not in output
    assert await executor.traceless() == []


async def test_a_container_does_not_see_the_others(executor: ExecutorProcess) -> None:
    box = await executor.create("sh", "-c", "ls /proc | grep -c '^[0-9]'; ls -l /proc/self/fd | wc -l; sleep 60")
    other = await executor.create("sleep", "60")
    await executor.run(other)
    await executor.run(box)
    request = pb.ReadLogsRequest(container_id=box, stdout=True, follow=True)
    lines = aiter(executor.runtime.ReadLogs(request, timeout=60))
    processes = int((await anext(lines)).lines[0].data)
    assert processes <= 4, "sh, ls, grep, and nobody else's"


async def test_stop_waits_and_then_kills(executor: ExecutorProcess) -> None:
    polite = await executor.create("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done")
    stubborn = await executor.create("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    for box, timeout, code in ((polite, 20, 3), (stubborn, 0, 137)):
        await executor.run(box)
        await anext(
            aiter(executor.runtime.ReadLogs(pb.ReadLogsRequest(container_id=box, stdout=True, follow=True), timeout=60))
        )
        request = pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=timeout)
        answer = await executor.runtime.StopContainer(request, timeout=30)
        assert answer.entry.exited.exit_code == code
    assert await executor.traceless() == []


async def test_removing_kills_what_runs(executor: ExecutorProcess) -> None:
    box = await executor.create()
    pid = (await executor.run(box)).started.pid
    await executor.remove(box)
    assert not Path(f"/proc/{pid}").exists()
    assert await executor.traceless() == []


async def test_memory_that_runs_out_in_a_killed_container_is_told(executor: ExecutorProcess) -> None:
    box = await executor.create("sh", "-c", "exec sleep 600")
    await executor.run(box)
    await executor.signal(box, signal.SIGUSR1)
    await executor.signal(box, signal.SIGKILL)
    exited = (await executor.exited(box)).exited
    assert (exited.exit_code, exited.oom_killed) == (137, False)


async def test_containers_outlive_the_executor_however_it_ends(executor: ExecutorProcess) -> None:
    box = await executor.create("sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done")
    pid = (await executor.run(box)).started.pid
    for end in (executor.kill, executor.stop):
        await end()
        assert Path(f"/proc/{pid}").exists()
        await executor.start()
        snapshot = await executor.snapshot(box)
        assert snapshot is not None
        assert (snapshot.phase, snapshot.started.started.pid) == (pb.CONTAINER_PHASE_RUNNING, pid)
    await executor.signal(box, signal.SIGKILL)
    assert (await executor.exited(box)).exited.exit_code == 137
    numbers = [int(line) for line in (await executor.output(box)).split()]
    assert numbers == list(range(len(numbers)))
    assert await executor.traceless() == []


async def test_an_exit_while_no_executor_ran_has_its_code(executor: ExecutorProcess) -> None:
    fifo_box = await executor.create("sh", "-c", "while [ ! -e /go ]; do sleep 0.01; done; exit 9")
    pid = (await executor.run(fifo_box)).started.pid
    watching = os.pidfd_open(pid)
    await executor.kill()
    Path(f"/proc/{pid}/root/go").touch()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watching, ended.set)
    async with asyncio.timeout(60):
        await ended.wait()
    loop.remove_reader(watching)
    os.close(watching)
    await executor.start()
    entry = await executor.exited(fifo_box)
    assert (entry.exited.exit_code, entry.exited.error) == (9, "")
    assert await executor.traceless() == []


async def test_a_killed_monitor_is_told_as_an_unknown_exit(executor: ExecutorProcess) -> None:
    box = await executor.create()
    await executor.run(box)
    os.kill(int((executor.paths.bundle(box) / "conmon.pid").read_text()), signal.SIGKILL)
    exited = (await executor.exited(box)).exited
    assert not exited.HasField("exit_code")
    assert "monitor" in exited.error
    assert await executor.traceless() == []


async def test_a_missing_bundle_of_a_running_container_is_survived(executor: ExecutorProcess) -> None:
    box, other = await executor.create(), await executor.create()
    for each in (box, other):
        await executor.run(each)
    await executor.kill()
    (executor.paths.bundle(box) / "config.json").unlink()
    (executor.paths.bundle(box) / "container.pid").unlink()
    await executor.start()
    snapshot = await executor.snapshot(other)
    assert snapshot is not None
    assert snapshot.phase == pb.CONTAINER_PHASE_RUNNING
    for each in (box, other):
        await executor.remove(each)
    assert await executor.traceless() == []


async def test_the_log_is_kept_under_its_cap_and_in_order(executor: ExecutorProcess) -> None:
    """Each burst is more than a file may have, and waits for its rotation."""
    script = """for i in 0 1 2 3 4 5; do
        seq $((i*5000+1)) $((i*5000+5000)); touch /written-$i; until [ -e /rotated-$i ]; do sleep 0.02; done
    done"""
    spec = executor.spec("sh", "-c", script)
    spec.log_max_size = 200_000
    box = await executor.create(spec=spec)
    pid = (await executor.run(box)).started.pid
    root, log = Path(f"/proc/{pid}/root"), executor.paths.log(box)
    for number in range(6):
        while not (root / f"written-{number}").exists() or log.stat().st_size > spec.log_max_size:
            await asyncio.sleep(0.02)
        (root / f"rotated-{number}").touch()
    await executor.exited(box)
    numbers = [int(line) for line in (await executor.output(box)).split()]
    # The first one kept may be the rest of a line whose beginning was dropped.
    assert numbers[1:] == list(range(numbers[1], 30001)), "what is dropped is the oldest, without a gap"
    kept = sum(path.stat().st_size for path in executor.paths.log(box).parent.iterdir())
    assert kept < 1_200_000, "of 1.5 MB"


async def test_only_the_group_may_connect_and_state_is_private(executor: ExecutorProcess) -> None:
    socket = executor.paths.socket.stat()
    assert stat.S_IMODE(socket.st_mode) == 0o660
    assert stat.S_IMODE(executor.paths.run.stat().st_mode) == 0o755
    open_to_others = [
        path.name
        for path in (*executor.paths.run.iterdir(), *executor.paths.root.iterdir())
        if path != executor.paths.socket and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert open_to_others == []
    abstract = [line for line in Path("/proc/net/unix").read_text().splitlines() if "slipway" in line and " @" in line]
    assert abstract == []


async def test_there_is_one_executor_for_a_run_directory(executor: ExecutorProcess) -> None:
    for command in ([], ["reset"]):
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "executor_service", *command, "--instance", executor.instance),
            *("--root-dir", str(executor.paths.root), "--run-dir", str(executor.paths.run)),
            cwd=PROJECT,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second.communicate()
        assert second.returncode == 1
        assert f"process {executor.pid}" in said.decode()
        assert "Traceback" not in said.decode()


async def test_the_node_says_what_it_is(executor: ExecutorProcess) -> None:
    answer = await executor.node.GetNode(node_service_pb2.GetNodeRequest(), timeout=60)
    assert answer.runtimes[0] in ("crun", "runc")
    assert answer.cgroup_layout in ("v1", "v2", "hybrid")
    assert answer.ipv4_forwarding
    assert answer.kernel_version == os.uname().release
    await executor.kill()
    await executor.start()
    again = await executor.node.GetNode(node_service_pb2.GetNodeRequest(), timeout=60)
    assert again.node_id == answer.node_id


async def test_a_call_under_way_ends_before_a_stopping_executor_does(executor: ExecutorProcess) -> None:
    box = await executor.create("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    await executor.run(box)
    await anext(
        aiter(executor.runtime.ReadLogs(pb.ReadLogsRequest(container_id=box, stdout=True, follow=True), timeout=60))
    )
    request = pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=1)
    stopping = asyncio.ensure_future(executor.runtime.StopContainer(request, timeout=60))
    async for answer in executor.runtime.FollowJournal(pb.FollowJournalRequest(), timeout=60):
        if answer.entry.HasField("signaled"):
            break
    assert executor.process is not None
    executor.process.terminate()
    assert (await stopping).entry.exited.exit_code == 137
    assert await executor.ended() == 0


async def test_a_runtime_of_ones_choice(executor: ExecutorProcess) -> None:
    spec = executor.spec("sh", "-c", "exit 4")
    spec.runtime = "runc"
    box = await executor.create(spec=spec)
    await executor.run(box)
    assert (await executor.exited(box)).exited.exit_code == 4
    assert await executor.traceless() == []
    spec = executor.spec("true")
    spec.runtime = "nope"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await executor.create(spec=spec)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_image_is_removed_when_its_last_container_is(executor: ExecutorProcess) -> None:
    from slipway.executor.v1 import image_store_service_pb2 as images

    box = await executor.create("true")
    request = images.RemoveImageRequest(image_id=executor.image_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await executor.images.RemoveImage(request, timeout=60)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await executor.remove(box)
    await executor.images.RemoveImage(request, timeout=60)


async def test_check_says_what_is_there() -> None:
    check = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "executor_service", "check"), cwd=PROJECT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await check.communicate()
    assert check.returncode == 0, said
    assert b"conmon" in said
