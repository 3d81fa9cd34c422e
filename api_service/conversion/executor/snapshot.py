"""A node's containers at one instant."""

from __future__ import annotations

from slipway.executor.v1 import runtime_service_pb2 as pb2

from api_service.conversion.executor.journal import entry_from_proto, health_from_proto
from api_service.executor_client.snapshot import ContainerSnapshot, NodeSnapshot, SnapshotPhase

_PHASES = {
    pb2.CONTAINER_PHASE_CREATED: SnapshotPhase.CREATED,
    pb2.CONTAINER_PHASE_RUNNING: SnapshotPhase.RUNNING,
    pb2.CONTAINER_PHASE_STOPPED: SnapshotPhase.STOPPED,
    pb2.CONTAINER_PHASE_BROKEN: SnapshotPhase.BROKEN,
    pb2.CONTAINER_PHASE_PAUSED: SnapshotPhase.PAUSED,
    pb2.CONTAINER_PHASE_RESTARTING: SnapshotPhase.RESTARTING,
}


def snapshot_from_proto(message: pb2.ListContainersResponse) -> NodeSnapshot:
    containers = tuple(_container_from_proto(container) for container in message.containers)
    return NodeSnapshot(containers=containers, journal_id=message.journal_id, sequence=message.sequence)


def _container_from_proto(message: pb2.ContainerSnapshot) -> ContainerSnapshot:
    return ContainerSnapshot(
        container_id=message.container_id,
        phase=_PHASES.get(message.phase, SnapshotPhase.BROKEN),
        started=entry_from_proto(message.started) if message.HasField("started") else None,
        last=entry_from_proto(message.last) if message.HasField("last") else None,
        error=message.error,
        health=health_from_proto(message.health) if message.HasField("health") else None,
        execs=tuple(message.exec_ids),
        removing=message.removing,
    )
