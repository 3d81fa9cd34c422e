"""Whether the executor that the settings of a service name is known to it already, as another node's."""

from __future__ import annotations

from api_service.deadline import Deadline
from api_service.executor_client.client import ExecutorClient
from api_service.records.node import NodeRecord
from api_service.records.node_repository import NodeRepository
from common.errors import FailedPrecondition

_FACTS_TIME = 2.0  # seconds; a start may wait for that


class Misnamed(FailedPrecondition):
    """What is on record of the node's containers is of a node that the service does not deal with."""

    default_reason = "NODE_HAS_ANOTHER_NAME"

    def __init__(self, node: NodeRecord, known: NodeRecord) -> None:
        way = f"--node {known.name}" if known.configured else "--executor none"
        super().__init__(
            f"node {node.name!r}: the executor at {node.address} is on record as node {known.name!r}, and nobody "
            f"would deal with that one's containers, volumes and networks; start this service with {way}, or, to give "
            "all of them up, with an empty store (another --state-dir)",
            resource_type="node",
            resource_name=node.name,
            owner=known.name,
        )


async def refuse_misnamed(node: NodeRecord, executor: ExecutorClient, nodes: NodeRepository) -> None:
    """For who has the store alone. An executor is asked only where there is another node that it could be. Raises
    Misnamed, and what the store and the executor raise."""
    others = {each.executor_id: each for each in await nodes.all() if each.executor_id and each.name != node.name}
    if not others:
        return
    facts = await executor.facts(deadline=Deadline.after(_FACTS_TIME))
    if (known := others.get(facts.node_id)) is not None:
        raise Misnamed(node, known)
