"""What the records say of a node's state: written by who follows its journal, whenever it changes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from functools import partial

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.node import OTHER_EXECUTOR_WAY_OUT, NodeFacts
from api_service.nodes.misnamed import refuse_misnamed
from api_service.nodes.registry import Node
from api_service.records.event import Event
from api_service.records.event_shapes import node_event
from api_service.records.node import NodeDescription, NodeRecord, NodeState, NodeStatus
from api_service.records.node_repository import NodeRepository
from common.errors import SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

NOT_YET = "it was not reached yet"
_COMES_BACK = "it answers again, and its journal is not followed yet"
_UNSERVED = "no service is configured with it any more; NodeService.AddNode takes it in"
_FACTS_TIME = 5.0  # seconds
_RETRY = 1.0  # seconds


class NodeContact:
    """Run `report_forever` beside the following of the journal; `introduce` belongs before each of its connections."""

    def __init__(self, node: Node, nodes: NodeRepository, *, clock: Callable[[], int]) -> None:
        self._node = node
        self._nodes = nodes
        self._clock = clock

    async def introduce(self) -> None:
        """Make sure that the executor is the node's. The first that answers is, unless it is another node's. Raises
        AlreadyExists for that one, Misnamed where any executor would do else, Unavailable."""
        node = self._node
        if node.exchangeable:
            await refuse_misnamed(node.record, node.executor, self._nodes)
            return
        facts = await node.executor.facts(deadline=Deadline.after(_FACTS_TIME))
        if not node.record.executor_id:
            # Another replica may have met it, which is not known here yet.
            record = await self._nodes.update(
                node.name, lambda found: found if found.executor_id else _met(found, facts)
            )
            if record is None:
                raise Unavailable(f"node {node.name!r} was removed, or is not on record yet")
            node.record = record
        if node.record.executor_id != facts.node_id:
            raise another_executor(node.record, facts.node_id)

    async def report_forever(self, withheld: Callable[[], str]) -> None:
        """`withheld`: why the node gets no lease though its journal is followed, see `NodeLease`."""
        follower = self._node.follower
        told: tuple[bool, str] = (False, "")
        while True:
            seen = self._seen(withheld)
            if seen != told and (seen[0] or seen[1]):
                try:
                    await self._report(failure=seen[1])
                except SlipwayError as error:
                    _log.warning("state of a node not recorded", node=self._node.name, error=error.message)
                    await asyncio.sleep(_RETRY)
                    continue
                told = seen
            if seen == self._seen(withheld):
                await follower.changed()

    def _seen(self, withheld: Callable[[], str]) -> tuple[bool, str]:
        """Whether the journal is followed, and what is wrong."""
        follower = self._node.follower
        return follower.connected, withheld() if follower.connected else follower.failure

    async def report_lost(self, *, after: float, withheld: str) -> None:
        """`after`: seconds without an answer, or without a lease that is `withheld`."""
        why = f"it has not answered for {after:g} s, so its lease is over: {self._node.follower.failure}"
        if self._node.follower.connected:
            why = f"it answers, but its lease is over: {withheld}"
        await self._record(NodeState.LOST, reason=why)

    async def report_back(self) -> None:
        """Before it may run again what it must not run while it is lost: from then on it is asked itself. Raises what
        the store raises."""
        await self._record(NodeState.UNREACHABLE, reason=_COMES_BACK, back=True)

    async def _report(self, *, failure: str) -> None:
        if failure:
            await self._record(NodeState.UNREACHABLE, reason=failure)
            return
        try:
            facts = await self._node.executor.facts(deadline=Deadline.after(_FACTS_TIME))
        except SlipwayError:
            facts = None  # it went again; that it was there is told all the same
        await self._record(NodeState.READY, facts=facts)

    async def _record(
        self, state: NodeState, *, reason: str = "", facts: NodeFacts | None = None, back: bool = False
    ) -> None:
        """`back`: of one that is lost, and no other."""
        before: NodeRecord | None = None

        def change(found: NodeRecord) -> NodeRecord:
            nonlocal before
            before = found
            lost = found.status.state is NodeState.LOST
            if state is NodeState.UNREACHABLE and lost is not back:
                return found  # which says more
            since = found.status.since if found.status.state is state else self._clock()
            changed = dataclasses.replace(found, status=NodeStatus(state=state, since=since, reason=reason))
            return changed if facts is None else _met(changed, facts)

        def event(changed: NodeRecord) -> Event | None:
            assert before is not None
            return state_event(before, changed, self._clock())

        await self._nodes.update(self._node.name, change, event)


async def report_unserved(nodes: NodeRepository, *, own: str, clock: Callable[[], int]) -> None:
    """For who has the store alone: nobody would say any more that a node of other settings than its own, of the node
    `own`, does not answer."""

    def change(found: NodeRecord) -> NodeRecord:
        if not found.configured or found.status.state is not NodeState.READY:
            return found
        return dataclasses.replace(
            found, status=NodeStatus(state=NodeState.UNREACHABLE, since=clock(), reason=_UNSERVED)
        )

    try:
        for node in await nodes.all():
            if node.name != own:
                await nodes.update(node.name, change, partial(state_event, node, time=clock()))
    except SlipwayError as error:
        _log.warning("state of nodes of other settings not recorded", error=error.message)


def _met(found: NodeRecord, facts: NodeFacts) -> NodeRecord:
    return dataclasses.replace(found, executor_id=facts.node_id, description=description(facts))


def state_event(before: NodeRecord, after: NodeRecord, time: int) -> Event | None:
    """None when the state is the same, and for the first contact with the node of the settings, which nobody added."""
    old, new = before.status.state, after.status.state
    if old is new or (after.configured and before.status.reason == NOT_YET):
        return None
    return node_event(after, "update", time, **{"state.old": old.value, "state.new": new.value})


def description(facts: NodeFacts) -> NodeDescription:
    return NodeDescription(
        version=facts.version,
        hostname=facts.hostname,
        os=facts.os,
        architecture=facts.architecture,
        kernel_version=facts.kernel_version,
        cgroup_layout=facts.cgroup_layout,
        cpus=facts.cpus,
        memory=facts.memory,
        runtimes=facts.runtimes,
        warnings=facts.warnings,
    )


def another_executor(node: NodeRecord, executor_id: str) -> Unavailable:
    return Unavailable(
        f"node {node.name!r}: the executor at {node.address} is another one ({executor_id[:12]}) than that of the node "
        f"({node.executor_id[:12]}); {OTHER_EXECUTOR_WAY_OUT}",
        reason="ANOTHER_EXECUTOR",
        metadata={"node": node.name, "address": node.address},
    )
