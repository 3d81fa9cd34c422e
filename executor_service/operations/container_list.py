"""Every container of the node with the journal's position at the same instant."""

from __future__ import annotations

from dataclasses import dataclass

from executor_service.node import Node
from executor_service.records import ContainerRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """`sequence` is that of the last entry the records include."""

    records: list[ContainerRecord]
    journal_id: str
    sequence: int


def container_list(node: Node) -> NodeSnapshot:
    """Read from memory within one turn of the event loop: consistent, and never waiting for anything."""
    return NodeSnapshot(records=node.records.all(), journal_id=node.journal.id, sequence=node.journal.head)
