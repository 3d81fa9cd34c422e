"""The nodes in the store: `nodes/<name>`, and in the same commits `node-addresses/<address>` and
`node-executors/<executor id>`, both to a name: two nodes cannot share an executor.

`node-removals/<name>` is there from the moment in which a removal begins until it is taken back, or a node of that name
is added again. Whoever puts on record that something is on the node has the commit demand that it is not there (see
`wanted`): so a removal has seen the record, or the commit fails.

`node-returns/<name>` is there from the moment in which a node is lost no more until it is lost again: what is done
because it is lost demands in its commit that it is not there (see `lost`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from urllib.parse import quote

from api_service.records.codec import Codec, Stored
from api_service.records.event import Event
from api_service.records.event_log import EventLog
from api_service.records.node import NodeRecord, NodeState
from api_service.store.store import Delete, Entry, Put, RevisionConflict, Store
from common.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound

_PREFIX, _ADDRESSES, _EXECUTORS = "nodes/", "node-addresses/", "node-executors/"
_REMOVALS, _RETURNS = "node-removals/", "node-returns/"
_MAX_ATTEMPTS = 16


class NodeGoing(FailedPrecondition):
    """What was to be put on a node was not, because that is being removed or is gone."""

    default_reason = "NODE_BEING_REMOVED"

    def __init__(self, name: str) -> None:
        why = "is being removed; choose another one, or repeat the request when it is not any more"
        super().__init__(f"node {name!r} {why}", resource_type="node", resource_name=name)


class NodeRepository:
    """Every method raises what the store raises."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._codec = Codec(NodeRecord)

    async def get(self, name: str) -> Stored[NodeRecord] | None:
        entry = await self._store.get(_key(name))
        return self._codec.decode(entry) if entry is not None else None

    async def find(self, name: str) -> NodeRecord:
        """Raises NotFound."""
        stored = await self.get(name)
        if stored is None:
            raise no_such_node(name)
        return stored.record

    async def all(self) -> list[NodeRecord]:
        """By name, those that can be read."""
        return self._codec.readable(await self._store.list(_PREFIX))

    async def add(self, node: NodeRecord, events: Sequence[Event] = ()) -> None:
        """Raises AlreadyExists for the name, the address or the executor of another node."""
        reserve = [Put(key=_address_key(node), value=node.name.encode(), expected_revision=0)]
        if node.executor_id:
            reserve.append(Put(key=_executor_key(node.executor_id), value=node.name.encode(), expected_revision=0))
        record = Put(key=_key(node.name), value=self._codec.encode(node), expected_revision=0)
        new = Delete(key=_removal_key(node.name))
        try:
            await self._store.commit(record, new, *reserve, *self._events.puts(events))
        except RevisionConflict as conflict:
            raise _taken(node, conflict) from conflict

    async def update(
        self,
        name: str,
        change: Callable[[NodeRecord], NodeRecord],
        event: Callable[[NodeRecord], Event | None] = lambda changed: None,
    ) -> NodeRecord | None:
        """Apply `change` to the record as it stands; what changes nothing is not written, nor told. None: there is no
        such node. Raises AlreadyExists when the executor that it names is another node's."""
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(name)
            if stored is None:
                return None
            changed = change(stored.record)
            if changed == stored.record:
                return changed
            told = [each for each in [event(changed)] if each is not None]
            put = Put(key=_key(name), value=self._codec.encode(changed), expected_revision=stored.revision)
            try:
                await self._store.commit(put, *_moves(stored.record, changed), *self._events.puts(told))
            except RevisionConflict as conflict:
                if conflict.key != _key(name):
                    raise _taken(changed, conflict) from conflict
                continue
            return changed
        raise _contended(name)

    async def delete(self, stored: Stored[NodeRecord], events: Sequence[Event] = ()) -> bool:
        """False when somebody changed it since it was read."""
        node = stored.record
        gone = [Delete(key=_key(node.name), expected_revision=stored.revision), Delete(key=_address_key(node))]
        gone.append(Delete(key=_return_key(node.name)))
        if node.executor_id:
            gone.append(Delete(key=_executor_key(node.executor_id)))
        try:
            await self._store.commit(*gone, *self._events.puts(events))
        except RevisionConflict:
            return False
        return True

    async def watch(self) -> AsyncGenerator[tuple[str, NodeRecord | None]]:
        """Every node as it stands, then every change; None when it is removed. One that cannot be read is left out."""
        revision = await self._store.revision()
        for node in await self.all():
            yield node.name, node
        async for change in self._store.watch(_PREFIX, after=revision):
            name = change.key.removeprefix(_PREFIX)
            if change.value is None:
                yield name, None
                continue
            for node in self._codec.readable([Entry(key=change.key, value=change.value, revision=change.revision)]):
                yield name, node


def _moves(before: NodeRecord, after: NodeRecord) -> list[Put | Delete]:
    """What else says where a node is, whose its executor is, whether it goes, and whether it has come back."""
    moved: list[Put | Delete] = []
    for old, new in (
        (_address_key(before), _address_key(after)),
        (_executor_key(before.executor_id), _executor_key(after.executor_id)),
    ):
        if old != new:
            moved += [Delete(key=old)] if old not in (_ADDRESSES, _EXECUTORS) else []
            moved += [Put(key=new, value=after.name.encode(), expected_revision=0)]
    if before.removing != after.removing:
        key = _removal_key(after.name)
        moved.append(Put(key=key, value=b"") if after.removing else Delete(key=key))
    if _is_lost(before) != _is_lost(after):
        key = _return_key(after.name)
        moved.append(Delete(key=key) if _is_lost(after) else Put(key=key, value=b""))
    return moved


def _is_lost(node: NodeRecord) -> bool:
    return node.status.state is NodeState.LOST


def wanted(node: str) -> Delete:
    """To be a part of the commit that puts something on this node, which then fails when the node is being removed."""
    return Delete(key=_removal_key(node), expected_revision=0)


def is_unwanted(conflict: RevisionConflict) -> bool:
    """Whether that is why a commit failed."""
    return conflict.key.startswith(_REMOVALS)


def lost(node: str) -> Delete:
    """To be a part of a commit that is right because this node is lost, which then fails when it is not any more."""
    return Delete(key=_return_key(node), expected_revision=0)


def no_such_node(name: str) -> NotFound:
    return NotFound(
        f"No such node: {name[:260]}; NodeService.ListNodes shows those there are",
        resource_type="node",
        resource_name=name[:260],
        reason="NODE_NOT_FOUND",
    )


def _taken(node: NodeRecord, conflict: RevisionConflict) -> AlreadyExists | Aborted:
    if conflict.current is None:
        return _contended(node.name)
    holder = conflict.current.value.decode()
    if conflict.key == _key(node.name):
        why, reason, holder = f"node {node.name!r} exists", "NODE_NAME_IN_USE", node.name
    elif conflict.key.startswith(_ADDRESSES):
        why, reason = f"the address {node.address} is that of node {holder!r}", "NODE_ADDRESS_IN_USE"
    else:
        why, reason = f"its executor {node.executor_id[:12]} is that of node {holder!r}", "NODE_EXECUTOR_IN_USE"
    return AlreadyExists(
        f"node {node.name!r} cannot be taken in: {why}; remove that one first, or give another",
        resource_type="node",
        resource_name=node.name,
        owner=holder,
        reason=reason,
    )


def _contended(name: str) -> Aborted:
    return Aborted(f"node {name!r}: others change its record all the time; repeat the request")


def _key(name: str) -> str:
    return f"{_PREFIX}{name}"


def _address_key(node: NodeRecord) -> str:
    """That of settings is its machine's own: on another one a socket of the same path is another executor's."""
    address = quote(node.address, safe="")
    return f"{_ADDRESSES}{node.name}/{address}" if node.configured else f"{_ADDRESSES}{address}"


def _removal_key(name: str) -> str:
    return f"{_REMOVALS}{name}"


def _return_key(name: str) -> str:
    return f"{_RETURNS}{name}"


def _executor_key(executor_id: str) -> str:
    return f"{_EXECUTORS}{executor_id}"
