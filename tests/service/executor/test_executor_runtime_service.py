"""RuntimeService over a fake host: what each call promises, over the wire."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import runtime_service_pb2 as pb

from common.errors import StartFailed
from tests.fixtures.executor_client import Client, spec_message
from tests.fixtures.fake_host.host import FakeHost
from tests.fixtures.fake_host.specs import container_id


async def _next_entry(stream: AsyncIterator[pb.FollowJournalResponse]) -> pb.JournalEntry:
    async with asyncio.timeout(60):
        return (await anext(stream)).entry


async def test_a_container_lives_from_create_to_remove(client: Client, host: FakeHost) -> None:
    journal = aiter(client.runtime.FollowJournal(pb.FollowJournalRequest(), timeout=60))
    accepted = await anext(journal)
    assert not accepted.HasField("entry")
    box = await client.create()
    started = await client.start(box)
    assert started.started.start_id == "s1"
    assert started.started.endpoints[0].ipv4_address == "10.0.0.2"
    assert host.traces(box) == ["mount", "sandbox", "bundle", "process"]
    assert (await client.snapshot()).containers[0].phase == pb.CONTAINER_PHASE_RUNNING

    stop = pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=5)
    stopped = await client.runtime.StopContainer(stop, timeout=60)
    assert stopped.entry.exited.exit_code == 128 + signal.SIGTERM
    assert [await _next_entry(journal) for _ in range(3)] == [
        started,
        pb.JournalEntry(
            journal_id=accepted.journal_id,
            sequence=2,
            time=(entry := (await _entries(client))[1]).time,
            container_id=box,
            signaled=entry.signaled,
        ),
        stopped.entry,
    ]

    await client.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=box), timeout=60)
    assert accepted.journal_id == started.journal_id == stopped.entry.journal_id
    snapshot = await client.snapshot()
    assert not snapshot.containers
    assert (snapshot.journal_id, snapshot.sequence) == (accepted.journal_id, 3)
    assert host.traces(box) == []
    assert not host.snapshots.prepared
    assert not host.bundles.files


async def _entries(client: Client) -> list[pb.JournalEntry]:
    head = (await client.snapshot()).sequence
    entries: list[pb.JournalEntry] = []
    async for answer in client.runtime.FollowJournal(pb.FollowJournalRequest(), timeout=60):
        if answer.HasField("entry"):
            entries.append(answer.entry)
        if len(entries) == head:
            break
    return entries


async def test_create_is_idempotent_and_refuses_another_specification(client: Client) -> None:
    await client.create()
    await client.create()
    other = spec_message()
    other.args[:] = ["true"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.runtime.CreateContainer(pb.CreateContainerRequest(spec=other), timeout=60)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_create_names_every_violation_at_once(client: Client, host: FakeHost) -> None:
    spec = spec_message()
    spec.id, spec.working_dir, spec.hostname, spec.image_id = "../x", "relative", "a\nb", "busybox"
    spec.network_mode = spec_pb.NETWORK_MODE_UNSPECIFIED
    spec.args.append("\0")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.runtime.CreateContainer(pb.CreateContainerRequest(spec=spec), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    fields = {violation.field for violation in _bad_request(refused.value).field_violations}
    assert fields == {
        "spec.id",
        "spec.working_dir",
        "spec.hostname",
        "spec.image_id",
        "spec.network_mode",
        "spec.args[2]",
    }
    assert not host.snapshots.prepared


def _bad_request(error: grpc.aio.AioRpcError) -> error_details_pb2.BadRequest:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has the trailing metadata it asks for
    assert status is not None
    found = error_details_pb2.BadRequest()
    assert any(detail.Unpack(found) for detail in status.details if detail.Is(found.DESCRIPTOR))
    return found


async def test_create_of_an_unknown_image_leaves_nothing(client: Client, host: FakeHost) -> None:
    host.images.images.clear()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create()
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert not (await client.snapshot()).containers


async def test_a_repeated_start_returns_the_first_outcome(client: Client, host: FakeHost) -> None:
    box = await client.create()
    first = await client.start(box)
    assert await client.start(box) == first
    host.runtime.end(box, code=0)
    await _until_stopped(client, box)
    assert await client.start(box) == first, "an answer that was lost must not run the container twice"
    second = await client.start(box, "s2")
    assert second.started.pid != first.started.pid
    assert await client.start(box, "s1") == first, "not even when another start came between"


async def test_a_running_container_is_not_started_twice(client: Client, host: FakeHost) -> None:
    box = await client.create()
    await client.start(box)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.start(box, "s2")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(host.runtime.exits) == 1


async def test_concurrent_calls_of_one_start_make_one_process(client: Client, host: FakeHost) -> None:
    box = await client.create()
    entries = await asyncio.gather(*(client.start(box) for _ in range(20)))
    assert all(entry == entries[0] for entry in entries)
    assert len(host.runtime.exits) == 1


async def test_a_command_that_is_missing_is_an_outcome(
    client: Client, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await client.create()

    async def refuse(*_: object, **__: object) -> None:
        raise StartFailed("container 'x': nope: not found", exit_code=127)

    monkeypatch.setattr(type(host.runtime), "start", refuse)
    entry = await client.start(box)
    assert entry.start_failed.exit_code == 127
    assert "not found" in entry.start_failed.message
    assert host.traces(box) == []
    snapshot = (await client.snapshot()).containers[0]
    assert snapshot.phase == pb.CONTAINER_PHASE_STOPPED
    assert snapshot.last == entry
    assert not snapshot.HasField("started")
    monkeypatch.undo()
    assert await client.start(box) == entry
    assert (await client.start(box, "s2")).HasField("started")


async def test_stop_kills_what_does_not_listen(client: Client, host: FakeHost) -> None:
    box = await client.create()
    await client.start(box)
    host.runtime.ignores = {signal.SIGTERM}
    request = pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=0)
    answer = await client.runtime.StopContainer(request, timeout=60)
    assert answer.entry.exited.exit_code == 128 + signal.SIGKILL
    assert host.runtime.signals == [(box, signal.SIGTERM), (box, signal.SIGKILL)]
    again = await client.runtime.StopContainer(request, timeout=60)
    assert not again.HasField("entry")


async def test_stop_says_that_a_process_does_not_die(hurried: Client, host: FakeHost) -> None:
    box = await hurried.create()
    await hurried.start(box)
    host.runtime.ignores = {signal.SIGTERM, signal.SIGKILL}
    request = pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=0)
    with pytest.raises(grpc.aio.AioRpcError) as stuck:
        await hurried.runtime.StopContainer(request, timeout=60)
    assert stuck.value.code() is grpc.StatusCode.INTERNAL
    assert "has not died" in (stuck.value.details() or "")
    assert (await hurried.snapshot()).containers[0].phase == pb.CONTAINER_PHASE_RUNNING


async def test_a_patient_stop_does_not_keep_a_kill_waiting(client: Client, host: FakeHost) -> None:
    box = await client.create()
    await client.start(box)
    host.runtime.ignores = {signal.SIGTERM}
    patient = asyncio.ensure_future(
        client.runtime.StopContainer(
            pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=-1), timeout=60
        )
    )
    journal = aiter(client.runtime.FollowJournal(pb.FollowJournalRequest(after_sequence=1), timeout=60))
    await anext(journal)
    assert (await _next_entry(journal)).signaled.signal == signal.SIGTERM
    await client.runtime.SignalContainer(pb.SignalContainerRequest(container_id=box, signal=signal.SIGKILL), timeout=60)
    assert (await patient).entry.exited.exit_code == 128 + signal.SIGKILL


async def test_a_stop_goes_on_when_its_caller_is_gone(client: Client, host: FakeHost) -> None:
    box = await client.create()
    await client.start(box)
    host.runtime.ignores = {signal.SIGTERM}
    request = pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=1)
    call = client.runtime.StopContainer(request)
    async with asyncio.timeout(60):
        while (box, signal.SIGTERM) not in host.runtime.signals:
            await asyncio.sleep(0.01)
    call.cancel()
    await _until_stopped(client, box)
    assert host.runtime.signals[-1] == (box, signal.SIGKILL)


async def test_signals_are_checked_and_need_a_process(client: Client) -> None:
    box = await client.create()
    for number, code in ((0, grpc.StatusCode.INVALID_ARGUMENT), (65, grpc.StatusCode.INVALID_ARGUMENT)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.runtime.SignalContainer(pb.SignalContainerRequest(container_id=box, signal=number), timeout=60)
        assert refused.value.code() is code
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.runtime.SignalContainer(pb.SignalContainerRequest(container_id=box, signal=15), timeout=60)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_remove_kills_what_runs_and_is_idempotent(client: Client, host: FakeHost) -> None:
    box = await client.create()
    await client.start(box)
    for _ in range(2):
        await client.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=box), timeout=60)
    assert host.traces(box) == []
    assert not host.snapshots.prepared
    last = (await _entries(client))[-1]
    assert last.exited.exit_code == 128 + signal.SIGKILL


async def test_the_journal_is_followed_from_a_position(client: Client, host: FakeHost) -> None:
    box = await client.create()
    await client.start(box)
    host.runtime.end(box, code=3, oom_killed=True)
    await _until_stopped(client, box)
    journal = aiter(client.runtime.FollowJournal(pb.FollowJournalRequest(after_sequence=1), timeout=60))
    await anext(journal)
    entry = await _next_entry(journal)
    assert (entry.sequence, entry.exited.exit_code, entry.exited.oom_killed) == (2, 3, True)


@pytest.mark.parametrize(("journal_id", "after"), [("another", 0), ("", 99), ("", -1)])
async def test_an_unknown_position_is_out_of_range(client: Client, journal_id: str, after: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(
            aiter(
                client.runtime.FollowJournal(
                    pb.FollowJournalRequest(journal_id=journal_id, after_sequence=after), timeout=60
                )
            )
        )
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_logs_are_read_and_followed_to_the_end(client: Client, host: FakeHost) -> None:
    box = await client.create()
    await client.start(box)
    log = host.paths.log(box)
    log.write_text("2026-01-02T03:04:05.000000006Z stdout F one\n2026-01-02T03:04:06Z stderr F two\n")
    request = pb.ReadLogsRequest(container_id=box, stdout=True, stderr=True, follow=True)
    lines = aiter(client.runtime.ReadLogs(request, timeout=60))
    one, two = (await anext(lines)).lines
    assert (one.data, two.stream) == (b"one\n", pb.LOG_STREAM_STDERR)
    with log.open("a") as file:
        file.write("2026-01-02T03:04:07Z stdout F three\n")
    assert [line.data for line in (await anext(lines)).lines] == [b"three\n"]
    host.runtime.end(box, code=0)
    assert [line async for line in lines] == []
    only = pb.ReadLogsRequest(container_id=box, stdout=True, tail=1)
    answers = client.runtime.ReadLogs(only, timeout=60)
    assert [line.data async for answer in answers for line in answer.lines] == [b"three\n"]


async def test_logs_of_no_stream_are_refused(client: Client) -> None:
    box = await client.create()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(client.runtime.ReadLogs(pb.ReadLogsRequest(container_id=box), timeout=60)))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_lists_do_not_wait_for_a_stuck_container(hurried: Client, host: FakeHost) -> None:
    box = await hurried.create()
    async with hurried.executor.node.locks.hold(box):
        assert [found.container_id for found in (await hurried.snapshot()).containers] == [box]
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await hurried.start(box)
        assert late.value.code() is grpc.StatusCode.ABORTED


async def test_health_and_reflection_answer(client: Client) -> None:
    check = client.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    for service in ("", "slipway.executor.v1.RuntimeService"):
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    services = client.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = services(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=60)
    names = {service.name for service in (await anext(aiter(asked))).list_services_response.service}
    assert {"slipway.executor.v1.NodeService", "slipway.executor.v1.ImageStoreService"} <= names


async def test_unknown_containers_are_not_found(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.start(container_id(7))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def _until_stopped(client: Client, container_id: str) -> None:
    """Wait for the end of a run that is going to end."""
    watch = client.executor.node.supervisor.watched(container_id)
    if watch is not None:
        async with asyncio.timeout(60):
            await asyncio.shield(watch.ended)
