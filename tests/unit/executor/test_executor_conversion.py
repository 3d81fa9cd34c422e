from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import runtime_service_pb2 as pb

from executor_service.container import ContainerSpec, LogLimits, NameResolution, NetworkMode
from executor_service.conversion import entry_to_proto, log_query_from_proto, spec_from_proto
from executor_service.journal import Exited, JournalEntry, Signaled, StartFailure
from tests.fixtures.executor_fakes import IMAGE_ID, container_id


def test_a_specification_arrives_whole() -> None:
    message = pb.ContainerSpec(
        id=container_id(1),
        image_id=IMAGE_ID,
        args=["a", "b"],
        env=["A=b"],
        working_dir="/srv",
        user="1:2",
        hostname="h",
        domainname="d",
        terminal=True,
        readonly_rootfs=True,
        shm_size=5,
        network_mode=pb.NETWORK_MODE_NONE,
        mac_address="02:00:00:00:00:01",
        dns_servers=["1.1.1.1"],
        dns_search=["s"],
        dns_options=["o"],
        extra_hosts=[pb.HostEntry(name="n", address="::1")],
        log_max_size=7,
        log_max_files=3,
        runtime="runc",
        annotations={"k": "v"},
    )
    assert {field.name for field in message.DESCRIPTOR.fields} == {field.name for field, _ in message.ListFields()}
    assert spec_from_proto(message) == ContainerSpec(
        id=container_id(1),
        image_id=IMAGE_ID,
        args=("a", "b"),
        env=("A=b",),
        working_dir="/srv",
        user="1:2",
        hostname="h",
        domainname="d",
        terminal=True,
        readonly_rootfs=True,
        shm_size=5,
        network_mode=NetworkMode.NONE,
        mac_address="02:00:00:00:00:01",
        names=NameResolution(servers=("1.1.1.1",), search=("s",), options=("o",), extra_hosts=(("n", "::1"),)),
        log=LogLimits(max_size=7, max_files=3),
        runtime="runc",
        annotations={"k": "v"},
    )


def _entry(event: Exited | Signaled | StartFailure) -> pb.JournalEntry:
    return entry_to_proto(JournalEntry(sequence=4, time=1_000_000_000_000_000_007, container_id="c", event=event))


def test_an_unknown_exit_code_is_absent_and_zero_is_not() -> None:
    unknown, zero = _entry(Exited(start_id="s", exit_code=None, error="why")), _entry(Exited(start_id="s", exit_code=0))
    assert not unknown.exited.HasField("exit_code")
    assert zero.exited.HasField("exit_code")
    assert (unknown.sequence, unknown.time.seconds, unknown.time.nanos) == (4, 1_000_000_000, 7)


def test_every_event_has_its_own_field() -> None:
    assert _entry(Signaled(signal=9)).signaled.signal == 9
    failed = _entry(StartFailure(start_id="s", exit_code=127, message="m")).start_failed
    assert (failed.start_id, failed.exit_code, failed.message) == ("s", 127, "m")


def test_until_is_exclusive_and_tail_may_be_zero() -> None:
    query = log_query_from_proto(
        pb.ReadLogsRequest(stdout=True, since=Timestamp(seconds=1), until=Timestamp(seconds=2), tail=0)
    )
    assert (query.since, query.until, query.tail) == (1_000_000_000, 1_999_999_999, 0)
    everything = log_query_from_proto(pb.ReadLogsRequest(stderr=True, follow=True))
    assert (everything.since, everything.until, everything.tail, everything.follow) == (None, None, None, True)
