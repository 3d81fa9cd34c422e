"""The node's containers at one instant."""

from __future__ import annotations

from functools import partial

from slipway.executor.v1 import runtime_service_pb2 as pb2

from executor_service.container_record import ContainerRecord, Phase
from executor_service.conversion.journal import entry_to_proto, health_to_proto
from executor_service.operations.container_list import NodeSnapshot

_PHASES = {
    Phase.CREATED: pb2.CONTAINER_PHASE_CREATED,
    Phase.RUNNING: pb2.CONTAINER_PHASE_RUNNING,
    Phase.PAUSED: pb2.CONTAINER_PHASE_PAUSED,
    Phase.RESTARTING: pb2.CONTAINER_PHASE_RESTARTING,
    Phase.STOPPED: pb2.CONTAINER_PHASE_STOPPED,
    Phase.BROKEN: pb2.CONTAINER_PHASE_BROKEN,
}


def snapshot_to_proto(snapshot: NodeSnapshot) -> pb2.ListContainersResponse:
    return pb2.ListContainersResponse(
        containers=[_container(record, snapshot) for record in snapshot.records],
        journal_id=snapshot.journal_id,
        sequence=snapshot.sequence,
    )


def _container(record: ContainerRecord, snapshot: NodeSnapshot) -> pb2.ContainerSnapshot:
    told = partial(entry_to_proto, journal_id=snapshot.journal_id)
    return pb2.ContainerSnapshot(
        container_id=record.id,
        phase=_PHASES[record.phase],
        started=told(record.started) if record.started else None,
        last=told(record.last) if record.last else None,
        error=record.error,
        health=health_to_proto(record.health) if record.health else None,
        exec_ids=snapshot.execs.get(record.id, ()),
        removing=record.removing,
    )
