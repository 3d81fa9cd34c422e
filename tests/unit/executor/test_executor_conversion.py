from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import runtime_service_pb2 as pb

from executor_service.container import LogLimits, NameResolution, NetworkMode
from executor_service.conversion.container_spec import spec_from_proto
from executor_service.conversion.journal import entry_to_proto
from executor_service.conversion.logs import log_query_from_proto
from executor_service.journal_entries import Exited, JournalEntry, Signaled, StartFailure
from tests.fixtures.fake_host.specs import IMAGE_ID, container_id


def test_a_specification_arrives_as_it_was_sent() -> None:
    message = spec_pb.ContainerSpec(
        id=container_id(1),
        image_id=IMAGE_ID,
        args=["a", "b"],
        working_dir="/srv",
        network_mode=spec_pb.NETWORK_MODE_NONE,
        dns_servers=["1.1.1.1"],
        dns_search=["s"],
        dns_options=["o"],
        extra_hosts=[spec_pb.HostEntry(name="n", address="::1")],
        log_max_size=7,
        log_max_files=3,
        annotations={"k": "v"},
    )
    spec = spec_from_proto(message)
    assert (spec.id, spec.image_id, spec.args, spec.working_dir) == (container_id(1), IMAGE_ID, ("a", "b"), "/srv")
    assert spec.network_mode is NetworkMode.NONE
    assert spec.names == NameResolution(
        servers=("1.1.1.1",), search=("s",), options=("o",), extra_hosts=(("n", "::1"),)
    )
    assert spec.log == LogLimits(max_size=7, max_files=3)
    assert spec.annotations == {"k": "v"}


_BASE = spec_pb.ContainerSpec(id=container_id(1), args=["a"], network_mode=spec_pb.NETWORK_MODE_BRIDGE)


@pytest.mark.parametrize("name", [field.name for field in spec_pb.ContainerSpec.DESCRIPTOR.fields])
def test_no_field_of_a_specification_is_lost(name: str) -> None:
    changed = spec_pb.ContainerSpec()
    changed.CopyFrom(_BASE)
    _fill(changed, spec_pb.ContainerSpec.DESCRIPTOR.fields_by_name[name])
    assert spec_from_proto(changed) != spec_from_proto(_BASE)


def _fill(message: Message, field: FieldDescriptor) -> None:
    """Another value than the one there, whatever the field's type."""
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value["key"] = "value"
    elif field.message_type is not None and field.is_repeated:
        added = value.add()
        for inner in added.DESCRIPTOR.fields:
            _fill(added, inner)
    elif field.message_type is not None:
        for inner in field.message_type.fields:
            _fill(value, inner)
        value.SetInParent()
    elif field.is_repeated:
        value.append("other")
    else:
        others = {bool: True, str: "other", int: 1 if value != 1 else 2, float: 3.0}
        setattr(message, field.name, others[type(value)])


def _entry(event: Exited | Signaled | StartFailure) -> pb.JournalEntry:
    entry = JournalEntry(sequence=4, time=1_000_000_000_000_000_007, container_id="c", event=event)
    return entry_to_proto(entry, journal_id="j")


def test_an_unknown_exit_code_is_absent_and_zero_is_not() -> None:
    unknown, zero = _entry(Exited(start_id="s", exit_code=None, error="why")), _entry(Exited(start_id="s", exit_code=0))
    assert not unknown.exited.HasField("exit_code")
    assert zero.exited.HasField("exit_code")
    assert (unknown.sequence, unknown.time.seconds, unknown.time.nanos) == (4, 1_000_000_000, 7)


def test_every_event_has_its_own_field() -> None:
    assert _entry(Signaled(signal=9)).signaled.signal == 9
    failed = _entry(StartFailure(start_id="s", exit_code=128, message="m", reason="UNSAFE_ROOT")).start_failed
    assert (failed.start_id, failed.exit_code, failed.message, failed.reason) == ("s", 128, "m", "UNSAFE_ROOT")


def test_until_is_exclusive_and_tail_may_be_zero() -> None:
    query = log_query_from_proto(
        pb.ReadLogsRequest(stdout=True, since=Timestamp(seconds=1), until=Timestamp(seconds=2), tail=0)
    )
    assert (query.since, query.until, query.tail) == (1_000_000_000, 1_999_999_999, 0)
    everything = log_query_from_proto(pb.ReadLogsRequest(stderr=True, follow=True))
    assert (everything.since, everything.until, everything.tail, everything.follow) == (None, None, None, True)
