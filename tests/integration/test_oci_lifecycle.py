"""Containers really made by conmon with crun and with runc: ends, failed starts, lost monitors, lost executors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, StartFailed
from executor_service.oci.conmon import ConmonFiles
from executor_service.oci.log_relay import find_relay, relayed
from executor_service.oci.processes import read_process, send_signal, wait_ended
from executor_service.oci.runtime import Process
from executor_service.oci.runtime_timeouts import RuntimeTimeouts
from tests.fixtures.oci import DEADLINE, UNAVAILABLE, Containers, containers_in, make_rootfs

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture(params=["crun", "runc"])
def containers(request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path) -> Iterator[Containers]:
    with containers_in(tmp_path, rootfs, request.param) as made:
        yield made


@pytest.mark.parametrize("code", [0, 7])
async def test_the_exit_code_is_the_programs_own(containers: Containers, code: int) -> None:
    container, ended = await containers.run("sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert ended.code == code
    assert not ended.oom_killed
    assert abs(ended.finished_at - time.time()) < DEADLINE
    lines = [line.split(" ", 1)[1] for line in container.log.splitlines()]
    assert sorted(lines) == ["stderr F err", "stdout F out"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it_with_128_plus_its_number(containers: Containers, number: int, code: int) -> None:
    # A pid namespace's first process ignores what it has no handler for, so it needs one for SIGTERM.
    container = containers.make("sh", "-c", "trap 'exit 143' TERM; echo ready; while :; do sleep 0.01; done")
    created = await containers.start(container)
    async with asyncio.timeout(DEADLINE):
        while not container.bundle.log_path.read_text():
            await asyncio.sleep(0.005)
    await containers.runtime.kill(container.id, created.container, number)
    assert (await containers.ended(container, created)).code == code
    with pytest.raises(FailedPrecondition, match="has ended"):
        await containers.runtime.kill(container.id, created.container, number)
    await containers.delete(container)


async def test_delete_kills_what_still_runs_and_can_be_repeated(containers: Containers) -> None:
    container = containers.make("sh", "-c", "sleep 1000 & sleep 1000")
    created = await containers.start(container)
    await containers.delete(container)
    assert read_process(created.container.pid) != created.container
    await containers.delete(container)
    assert container.bundle.log_path.exists()


async def test_delete_finds_the_state_under_a_runtime_that_is_configured_no_more(containers: Containers) -> None:
    container = containers.make("true")
    state = containers.runtime.state_root / "former" / container.id
    state.mkdir(parents=True)
    await containers.delete(container)
    assert not state.exists()


async def test_delete_of_a_container_that_was_never_started(containers: Containers) -> None:
    container = containers.make("true")
    await containers.runtime.create(container.bundle)
    await containers.delete(container)


@pytest.mark.parametrize(
    ("command", "code"),
    [("/no/such/file", 127), ("no-such-program", 127), ("/etc/passwd", 126), ("/etc", 126), ("/etc/passwd/x", 127)],
)
async def test_a_command_that_cannot_run(containers: Containers, command: str, code: int) -> None:
    with pytest.raises(StartFailed) as failure:
        await containers.run(command)
    assert failure.value.exit_code == code, failure.value.message


async def test_any_other_failure_is_128(containers: Containers) -> None:
    container = containers.make("true")
    root = container.bundle.config["root"]
    assert isinstance(root, dict)
    root["path"] = "/dev/null"
    linux = container.bundle.config["linux"]
    assert isinstance(linux, dict)
    linux["sysctl"] = {"kernel.nonsense": "1"}
    with pytest.raises(StartFailed) as failure:
        await containers.runtime.create(container.bundle)
    assert failure.value.exit_code in (127, 128)


async def test_a_second_start_fails(containers: Containers) -> None:
    container = containers.make("sleep", "1000")
    await containers.start(container)
    with pytest.raises(StartFailed):
        await containers.runtime.start(container.id, runtime=containers.runtime_name)
    await containers.delete(container)


async def test_a_killed_monitor_means_an_unknown_exit_code_and_no_container(containers: Containers) -> None:
    container = containers.make("sleep", "1000")
    created = await containers.start(container)
    assert send_signal(created.monitor, signal.SIGKILL)
    ended = await containers.ended(container, created)
    assert ended.code is None
    assert read_process(created.container.pid) != created.container
    await containers.delete(container)


async def test_an_end_that_nobody_watched_is_still_told(containers: Containers) -> None:
    container = containers.make("sh", "-c", "exit 9")
    created = await containers.start(container)
    await wait_ended(created.monitor)
    assert (await containers.ended(container, created)).code == 9
    await containers.delete(container)


async def test_a_cancelled_wait_leaves_the_container_alone(containers: Containers) -> None:
    container = containers.make("sleep", "1000")
    created = await containers.start(container)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    waiting = asyncio.create_task(containers.runtime.wait_exit(created, bundle=container.bundle.directory))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert containers.runtime.find(container.bundle.directory) == created
    await containers.delete(container)


@pytest.mark.parametrize("log_buffer", [0, 1000])  # with one there is a relay of the log
@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04])
async def test_a_create_cancelled_at_any_instant_leaves_nothing(
    containers: Containers, delay: float, log_buffer: int
) -> None:
    container = containers.make("sleep", "1000", log_buffer=log_buffer)
    creating = asyncio.create_task(containers.runtime.create(container.bundle))
    await asyncio.sleep(delay)
    creating.cancel()
    try:
        await creating
    except asyncio.CancelledError:
        assert containers.leftovers() == []
    else:
        await containers.delete(container)


async def test_a_runtime_that_hangs_is_ended_at_the_deadline(containers: Containers, tmp_path: Path) -> None:
    fake = tmp_path / "fake" / containers.runtime_name
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nsleep 1000\n")
    fake.chmod(0o755)
    catalog = containers.runtime.catalog.probe(configured={containers.runtime_name: str(fake)})
    timeouts = RuntimeTimeouts(create=0.3)
    runtime = type(containers.runtime)(
        catalog=catalog, state_root=tmp_path / "hung", cgroups=containers.runtime.cgroups, timeouts=timeouts
    )
    container = containers.make("true")
    with pytest.raises(DeadlineExceeded, match="did not answer"):
        await runtime.create(container.bundle)


async def test_the_monitor_outlives_the_process_that_started_it(containers: Containers) -> None:
    container = containers.make("sleep", "1000")
    created = await containers.start(container)
    pid = created.monitor.pid
    assert os.getsid(pid) == pid
    assert os.getpgid(pid) == pid
    held = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    ours = {str(Path(f"/proc/self/fd/{number}").readlink()) for number in (1, 2)}
    assert not {link for link in held & ours if link != "/dev/null"}
    await containers.delete(container)


async def test_twenty_at_once(containers: Containers) -> None:
    done = await asyncio.gather(*(containers.run("sh", "-c", f"echo {n}; exit {n}") for n in range(20)))
    assert [ended.code for _, ended in done] == list(range(20))
    assert [container.output for container, _ in done] == [[str(n)] for n in range(20)]


@pytest.mark.parametrize("identifier", ["../x", "..", "", "A" * 64, "a" * 63, "a" * 64 + "\n", "é" * 64])
async def test_hostile_ids_reach_no_runtime(containers: Containers, tmp_path: Path, identifier: str) -> None:
    with pytest.raises(InvalidArgument, match="64"):
        await containers.runtime.delete(identifier, bundle=tmp_path)
    with pytest.raises(InvalidArgument, match="64"):
        await containers.runtime.start(identifier)


@pytest.mark.parametrize("log_buffer", [0, 1000])
async def test_a_container_whose_executor_died_within_create_is_found(
    containers: Containers, tmp_path: Path, log_buffer: int
) -> None:
    """The executor's place is taken by a process that starts conmon and is killed before it hears the answer."""
    container = containers.make("sleep", "1000", log_buffer=log_buffer)
    script = tmp_path / "create.py"
    script.write_text(_CREATE_AND_HANG)
    pickled = tmp_path / "bundle.json"
    pickled.write_text(_as_json(container.bundle.config))
    argv = [sys.executable, str(script), container.id, str(container.bundle.directory), str(tmp_path / "state")]
    argv += [containers.runtime_name, str(pickled), str(log_buffer)]
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    async with asyncio.timeout(DEADLINE):
        await child.stdout.readline()
        child.kill()
        await child.wait()
        while (found := containers.runtime.find(container.bundle.directory)) is None:
            await asyncio.sleep(0.005)
    # conmon ends when nobody reads its answer, so the process may wait at its gate with no monitor: only to be deleted.
    await containers.delete(container)
    assert read_process(found.container.pid) != found.container


_CREATE_AND_HANG = """
import asyncio, json, pathlib, sys
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.conmon_runtime import ConmonRuntime
from executor_service.oci.runtime import Bundle
from executor_service.oci.runtimes import RuntimeCatalog

identifier, directory, state, name, config, log_buffer = sys.argv[1:]
directory = pathlib.Path(directory)
runtime = ConmonRuntime(
    catalog=RuntimeCatalog.probe(default=name), state_root=pathlib.Path(state), cgroups=CgroupTree.probe()
)
bundle = Bundle(
    container_id=identifier, directory=directory, config=json.loads(pathlib.Path(config).read_text()),
    log_path=directory / "log", log_size_limit=0, terminal=False, runtime=name,
    log_buffer=int(log_buffer),
)

async def main():
    creating = asyncio.create_task(runtime.create(bundle))
    while not (directory / "conmon.pid").exists():
        await asyncio.sleep(0.0002)
    print("spawned", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_a_relay_whose_executor_died_before_there_was_a_monitor_is_ended(containers: Containers) -> None:
    """Nothing but its command line tells whose it is."""
    container = containers.make("sleep", "1000", log_buffer=1000)
    with relayed(container.bundle):
        pass
    relay = find_relay(container.bundle.directory)
    assert relay is not None
    (container.bundle.directory / "relay.pid").unlink()
    await containers.delete(container)
    assert read_process(relay.pid) != relay


def _as_json(config: object) -> str:
    return json.dumps(config)


async def test_a_reused_pid_is_not_the_container(containers: Containers) -> None:
    container = containers.make("true")
    files = ConmonFiles(bundle=container.bundle.directory)
    files.prepare()
    files.container_pid.write_text(str(os.getpid()))
    files.monitor_pid.write_text(str(os.getpid()))
    assert containers.runtime.find(container.bundle.directory) is None
    assert not send_signal(Process(pid=os.getpid(), start_time=1), signal.SIGKILL)
    await containers.delete(container)


async def test_a_log_on_the_way_is_private(containers: Containers) -> None:
    container, _ = await containers.run("true")
    config = ConmonFiles(bundle=container.bundle.directory).config
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(container.bundle.log_path.stat().st_mode) & 0o007 == 0
