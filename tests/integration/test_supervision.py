"""Restart policies and health checks on the real kernel, through both services. Delays are of the policies' own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2, health_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

Status = container_pb2.ContainerStatus
HEALTHY, UNHEALTHY = health_pb2.HEALTH_STATUS_HEALTHY, health_pb2.HEALTH_STATUS_UNHEALTHY
# A gRPC server that says SERVING for the service `good` only.
GRPC_SERVER = """
import grpc, time
from concurrent.futures import ThreadPoolExecutor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(ThreadPoolExecutor(2))
servicer = health.HealthServicer()
servicer.set("good", health_pb2.HealthCheckResponse.SERVING)
servicer.set("bad", health_pb2.HealthCheckResponse.NOT_SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
server.add_insecure_port("127.0.0.1:7000")
server.start()
print("ready", flush=True)
time.sleep(600)
"""


def seconds(length: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(length * 1e9))
    return duration


def policy(name: str = "always", *, delay: float = 0.05, **fields: object) -> container_pb2.RestartPolicy:
    return container_pb2.RestartPolicy(name=name, initial_delay=seconds(delay), max_delay=seconds(2), **fields)  # type: ignore[arg-type]  # as the message takes them


def check(**probe: object) -> health_pb2.HealthConfig:
    return health_pb2.HealthConfig(interval=seconds(0.1), timeout=seconds(5), retries=2, **probe)  # type: ignore[arg-type]  # as the message takes them


async def until(
    engine: Slipway, container: str, holds: Callable[[container_pb2.Container], bool]
) -> container_pb2.Container:
    """The container when it holds; each event is a reason to look again."""
    call = engine.system.StreamEvents(system_pb.StreamEventsRequest(since=Timestamp(seconds=1)), timeout=60)
    async for _ in call:
        if holds(found := await engine.inspect(container)):
            call.cancel()
            return found
    raise AssertionError(await engine.inspect(container))


def serves(status: health_pb2.HealthStatus.ValueType) -> Callable[[container_pb2.Container], bool]:
    return lambda found: found.state.health.status == status


async def stop(engine: Slipway, container: str) -> None:
    await engine.containers.StopContainer(pb.StopContainerRequest(container=container, timeout=0), timeout=30)


async def times(engine: Slipway, container: str) -> list[tuple[str, float]]:
    """Begins and ends of the container's runs, in seconds."""
    now = Timestamp()
    now.GetCurrentTime()
    request = system_pb.StreamEventsRequest(
        since=Timestamp(seconds=1), until=now, container=[container], action=["start", "die"]
    )
    call = engine.system.StreamEvents(request, timeout=30)
    return [(item.event.action, item.event.time.ToNanoseconds() / 1e9) async for item in call]


async def test_backoff_and_the_count_of_on_failure(engine: Slipway) -> None:
    limited = policy("on-failure", delay=0.3, maximum_retry_count=3)
    expected, shortest = (0.3, 0.6, 1.2), [60.0] * 3
    # The start itself takes its time too, which is not long unless the machine is busy just then.
    while not all(least < wanted * 1.1 + 0.5 for wanted, least in zip(expected, shortest, strict=True)):
        container = await engine.run("sh", "-c", "exit 7", restart_policy=limited)
        ended = await engine.wait(container)
        found = await engine.inspect(container)
        assert (ended.exit_code, found.restart_count) == (7, 3)
        assert found.state.status == Status.CONTAINER_STATUS_EXITED
        told = await times(engine, container)
        assert [action for action, _ in told] == ["start", "die"] * 4
        waited = [told[index + 1][1] - told[index][1] for index in (1, 3, 5)]
        assert all(wanted <= found_wait for wanted, found_wait in zip(expected, waited, strict=True)), waited
        shortest = [min(pair) for pair in zip(shortest, waited, strict=True)]
        await engine.remove(container)


async def test_exit_0_ends_on_failure_and_a_stop_ends_always(engine: Slipway) -> None:
    fine = await engine.run("true", restart_policy=policy("on-failure"))
    assert (await engine.wait(fine)).exit_code == 0
    again = await engine.run("true", restart_policy=policy())
    await until(engine, again, lambda found: found.restart_count >= 2)
    await stop(engine, again)
    stopped = (await engine.inspect(again)).state
    assert (stopped.status, stopped.running) == (Status.CONTAINER_STATUS_EXITED, False)
    # A kill with SIGKILL is wanted too.
    killed = await engine.run("sleep", "300", restart_policy=policy())
    await engine.kill(killed)
    assert (await engine.inspect(killed)).state.status == Status.CONTAINER_STATUS_EXITED
    for container in (fine, again, killed):
        await engine.remove(container)


async def test_a_monitor_that_is_killed_is_a_failure(engine: Slipway) -> None:
    container = await engine.run("sleep", "300", restart_policy=policy("on-failure"))
    pid = (await engine.inspect(container)).state.pid
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert "conmon" in Path(f"/proc/{monitor}/comm").read_text()
    os.kill(monitor, signal.SIGKILL)
    found = await until(engine, container, lambda found: found.restart_count == 1)
    assert found.state.pid not in (0, pid)
    await engine.remove(container)


async def test_a_restart_survives_the_executor(engine: Slipway) -> None:
    """Killed between the exit and the restart, and with an exit while nobody was there."""
    pending = await engine.run("sh", "-c", "exit 3", restart_policy=policy(delay=1.5))
    unseen = await engine.run("sleep", "300", restart_policy=policy())
    await until(engine, pending, lambda found: found.state.restarting)
    pid = (await engine.inspect(unseen)).state.pid
    await engine.executor.kill()
    os.kill(pid, signal.SIGKILL)
    await engine.executor.start()
    await engine.node_back()
    assert (await until(engine, pending, lambda found: found.restart_count >= 1)).restart_count >= 1
    again = await until(engine, unseen, lambda found: found.restart_count == 1 and found.state.pid > 0)
    assert again.state.pid != pid
    for container in (pending, unseen):
        await engine.remove(container)


async def test_after_a_reboot_the_policies_decide(engine: Slipway) -> None:
    plain = await engine.run("sleep", "300")
    always = await engine.run("sleep", "300", restart_policy=policy())
    stopped = await engine.run("sleep", "300", restart_policy=policy())
    unless = await engine.run("sleep", "300", restart_policy=policy("unless-stopped"))
    unless_stopped = await engine.run("sleep", "300", restart_policy=policy("unless-stopped"))
    for container in (stopped, unless_stopped):
        await stop(engine, container)
    await engine.executor.kill()
    _reboot(Path(f"/var/lib/slipway-{engine.instance}/state.db"))
    await engine.executor.start()
    await engine.node_back()
    for container in (always, stopped, unless):
        found = await until(engine, container, lambda found: found.restart_count == 1)
        assert found.state.pid > 0
    for container in (plain, unless_stopped):
        assert (await engine.inspect(container)).state.status == Status.CONTAINER_STATUS_EXITED
    for container in (plain, always, stopped, unless, unless_stopped):
        await engine.remove(container)


def _reboot(database: Path) -> None:
    """What an executor finds after a boot: it remembers another one."""
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE meta SET value = 'another' WHERE key = 'boot_id'")
        for container_id, run in connection.execute("SELECT id, run FROM containers WHERE run IS NOT NULL").fetchall():
            changed = json.dumps({**json.loads(run), "boot_id": "another"})
            connection.execute("UPDATE containers SET run = ? WHERE id = ?", (changed, container_id))
    connection.close()


async def test_probes_by_program_and_what_they_write(engine: Slipway) -> None:
    script = "echo probing; test -e /tmp/well"
    container = await engine.run(
        *("sh", "-c", "sleep 0.5; touch /tmp/well; sleep 300"),
        config={"healthcheck": check(test=["CMD-SHELL", script]), "working_dir": "/"},
    )
    found = await until(engine, container, serves(HEALTHY))
    assert found.state.health.failing_streak == 0
    assert found.state.health.log[-1].exit_code == 0
    assert found.state.health.log[-1].output == "probing\n"
    await engine.remove(container)


async def test_a_probe_that_takes_too_long_is_killed(engine: Slipway) -> None:
    length = f"77{os.getpid()}"  # nobody else's
    slow = health_pb2.HealthConfig(
        test=["CMD", "sleep", length], interval=seconds(0.05), timeout=seconds(0.2), retries=1
    )
    container = await engine.run("sleep", "300", config={"healthcheck": slow})
    found = await until(engine, container, serves(UNHEALTHY))
    assert found.state.health.log[-1].exit_code == -1
    assert "exceeded timeout (0.2s)" in found.state.health.log[-1].output
    await stop(engine, container)
    assert not any(b"sleep\x00%b\x00" % length.encode() in line for line in _command_lines())
    await engine.remove(container)


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield path.read_bytes()


async def test_native_probes_reach_what_only_listens_inside(engine: Slipway) -> None:
    serving = ("sh", "-c", "mkdir /www; echo fine > /www/ok; httpd -f -p 127.0.0.1:8080 -h /www")
    http = check(http=health_pb2.HttpProbe(port=8080, path="/ok"))
    probes = {
        "tcp": (check(tcp=health_pb2.TcpProbe(port=8080)), HEALTHY, "port 8080 accepts connections"),
        "http": (http, HEALTHY, "HTTP/1.1 200 OK\nfine\n"),
        "shut": (check(tcp=health_pb2.TcpProbe(port=81)), UNHEALTHY, "nothing listens on port 81"),
    }
    started = {
        name: await engine.run(*serving, config={"healthcheck": probe}) for name, (probe, _, _) in probes.items()
    }
    for name, (_, status, output) in probes.items():
        found = await until(engine, started[name], serves(status))
        assert output in found.state.health.log[-1].output
    pid = (await engine.inspect(started["http"])).state.pid
    Path(f"/proc/{pid}/root/www/ok").unlink()
    found = await until(engine, started["http"], serves(UNHEALTHY))
    assert "HTTP/1.1 404 Not Found" in found.state.health.log[-1].output
    for container in started.values():
        await engine.remove(container)


async def test_grpc_probes(engine: Slipway) -> None:
    started = {}
    for service in ("good", "bad", "unknown"):
        probe = check(grpc=health_pb2.GrpcProbe(port=7000, service=service))
        probe.retries = 1_000_000 if service == "good" else 3
        started[service] = await engine.run("sleep", "300", config={"healthcheck": probe})
    servers = []
    try:
        for container in started.values():
            pid = (await engine.inspect(container)).state.pid
            inside = ("nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", GRPC_SERVER)
            servers.append(await asyncio.create_subprocess_exec(*inside, stdout=asyncio.subprocess.DEVNULL))
        found = await until(engine, started["good"], serves(HEALTHY))
        assert found.state.health.log[-1].output == "SERVING"
        for service in ("bad", "unknown"):
            await until(engine, started[service], serves(UNHEALTHY))
    finally:
        for server in servers:
            server.kill()
            await server.wait()
    for container in started.values():
        await engine.remove(container)


async def test_unhealthy_is_restarted(engine: Slipway) -> None:
    """It would end by itself with 0 when asked to: that it was unhealthy makes it a failure. Then it is well."""
    container = await engine.run(
        *("sh", "-c", "trap 'touch /well; exit 0' TERM; while :; do sleep 0.05; done"),
        config={"healthcheck": check(test=["CMD", "test", "-e", "/well"]), "stop_timeout": 60},
        restart_policy=policy("on-failure", on_unhealthy=True),
    )
    found = await until(engine, container, lambda found: found.restart_count == 1)
    assert found.state.running
    await engine.remove(container)


async def test_a_frozen_container_is_not_probed(engine: Slipway) -> None:
    container = await engine.run(
        "sleep", "300", config={"healthcheck": check(test=["CMD-SHELL", "echo x >> /tmp/probes"])}
    )
    await until(engine, container, serves(HEALTHY))
    probes = Path(f"/proc/{(await engine.inspect(container)).state.pid}/root/tmp/probes")
    await engine.containers.PauseContainer(pb.PauseContainerRequest(container=container), timeout=60)
    before = probes.read_bytes()
    await asyncio.sleep(0.4)  # four intervals
    assert probes.read_bytes() == before
    assert (await engine.inspect(container)).state.health.status == HEALTHY
    await engine.containers.UnpauseContainer(pb.UnpauseContainerRequest(container=container), timeout=60)
    async with asyncio.timeout(60):
        while probes.read_bytes() == before:
            await asyncio.sleep(0.02)
    await engine.remove(container)
