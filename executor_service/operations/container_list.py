"""Every container of the node with the journal's position at the same instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from executor_service.container_record import ContainerRecord
from executor_service.node import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """`sequence` is that of the last entry the records include. `execs`: the ids of each container's, where there are
    any."""

    records: list[ContainerRecord]
    execs: Mapping[str, Sequence[str]]
    journal_id: str
    sequence: int


def container_list(node: Node) -> NodeSnapshot:
    """Read from memory within one turn of the event loop: consistent, and never waiting for anything."""
    return NodeSnapshot(
        records=node.records.all(),
        execs=node.execs.by_container(),
        journal_id=node.journal.id,
        sequence=node.journal.head,
    )
