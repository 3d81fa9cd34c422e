"""The container that an operation needs to be running."""

from __future__ import annotations

from common.errors import FailedPrecondition
from executor_service.container import ContainerSpec
from executor_service.container_record import ContainerRecord
from executor_service.node import Node
from executor_service.supervision.supervisor import Watch


def running(node: Node, container_id: str) -> tuple[ContainerRecord, ContainerSpec, Watch]:
    """Raises NotFound, and FailedPrecondition (reason `NOT_RUNNING`)."""
    record = node.records.get(container_id)
    watch = node.supervisor.watched(container_id)
    if record.spec is None or watch is None or not record.phase.has_process:
        raise not_running(record)
    return record, record.spec, watch


def not_running(record: ContainerRecord) -> FailedPrecondition:
    return FailedPrecondition(
        f"container {record.id!r} does not run; it is {record.phase}",
        resource_type="container",
        resource_name=record.id,
        reason="NOT_RUNNING",
    )
