"""The networks in the store: `networks/<id>`, and `network-names/<name>` to an id, written in the same commits. What no
two overlay networks may have, `overlays/vni/<number>` and `overlays/subnet/<subnet>`, leads to an id, too.

Who is attached to a network stands in the containers' records, and the node has the last word: it refuses to remove a
network that a container names, and to make a container on a network that is not there.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence

from api_service.records.codec import Codec, Stored
from api_service.records.event import Event
from api_service.records.event_log import EventLog
from api_service.records.network import NetworkPhase, NetworkRecord
from api_service.records.node_repository import NodeGoing, is_unwanted, wanted
from api_service.store.store import Delete, Entry, Put, RevisionConflict, Store
from common.errors import Aborted, InvalidArgument, NotFound, Violation

_PREFIX, _NAMES, _OVERLAYS = "networks/", "network-names/", "overlays/"
_ID_PREFIX = re.compile(r"[0-9a-f]{1,64}")
_MAX_ATTEMPTS = 16
_MAX_CANDIDATES = 10


class NetworkRepository:
    """Every method raises what the store raises."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._codec = Codec(NetworkRecord)

    async def get(self, network_id: str) -> Stored[NetworkRecord] | None:
        entry = await self._store.get(_key(network_id))
        return self._codec.decode(entry) if entry is not None else None

    async def find(self, reference: str) -> NetworkRecord:
        """The network of a full id, a name or a unique id prefix, in this order. One that is being created does not
        exist. Raises NotFound, or InvalidArgument (reason `AMBIGUOUS_NETWORK`) naming the candidates."""
        if (found := await self._shown(reference)) is not None:
            return found
        named = await self._store.get(_name_key(reference))
        if named is not None and (found := await self._shown(named.value.decode())) is not None:
            return found
        matches = [one for one in await self.all() if _ID_PREFIX.fullmatch(reference) and one.id.startswith(reference)]
        if len(matches) > 1:
            raise _ambiguous(reference, matches)
        if not matches:
            raise no_such_network(reference)
        return matches[0]

    async def all(self) -> list[NetworkRecord]:
        """By name, without those that are being created."""
        shown = [one for one in await self.every_phase() if one.phase is not NetworkPhase.CREATING]
        return sorted(shown, key=lambda network: network.name)

    async def every_phase(self) -> list[NetworkRecord]:
        """Those that can be read."""
        return self._codec.readable(await self._store.list(_PREFIX))

    async def ids(self) -> set[str]:
        """Of all there are, of whatever phase, readable or not."""
        return {entry.key.removeprefix(_PREFIX) for entry in await self._store.list(_PREFIX)}

    async def add(self, network: NetworkRecord, events: Sequence[Event] = ()) -> str | None:
        """The id of the network that holds its name; None: it was written. Raises RevisionConflict when another overlay
        network has its VNI or one of its subnets, NodeGoing for one of a single node."""
        keys = (_name_key(network.name), *_overlay_keys(network))
        try:
            await self._store.commit(
                *(Put(key=key, value=network.id.encode(), expected_revision=0) for key in keys),
                Put(key=_key(network.id), value=self._codec.encode(network), expected_revision=0),
                *([wanted(network.node)] if network.is_local else []),
                *self._events.puts(events),
            )
        except RevisionConflict as conflict:
            if is_unwanted(conflict):
                raise NodeGoing(network.node) from conflict
            if conflict.key != _name_key(network.name):
                raise
            return conflict.current.value.decode() if conflict.current is not None else ""
        return None

    async def update(
        self, network_id: str, change: Callable[[NetworkRecord], NetworkRecord], events: Sequence[Event] = ()
    ) -> NetworkRecord | None:
        """Apply `change` to the record as it stands. None: there is no such network."""
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(network_id)
            if stored is None:
                return None
            changed = change(stored.record)
            put = Put(key=_key(network_id), value=self._codec.encode(changed), expected_revision=stored.revision)
            if await self._committed(put, *self._events.puts(events)):
                return changed
        raise _contended(network_id)

    async def delete(self, network_id: str, events: Sequence[Event] = ()) -> None:
        """With its name. Nothing there: nothing happens."""
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(network_id)
            if stored is None:
                return
            named = await self._store.get(_name_key(stored.record.name))
            gone = [Delete(key=_key(network_id), expected_revision=stored.revision)]
            if named is not None and named.value.decode() == network_id:
                gone.append(Delete(key=_name_key(stored.record.name), expected_revision=named.revision))
            gone += [Delete(key=key) for key in _overlay_keys(stored.record)]
            if await self._committed(*gone, *self._events.puts(events)):
                return
        raise _contended(network_id)

    async def watch(self) -> AsyncGenerator[tuple[str, NetworkRecord | None]]:
        """Every network as it stands, then every change; None when it is removed. One that cannot be read is left
        out."""
        revision = await self._store.revision()
        for network in await self.every_phase():
            yield network.id, network
        async for change in self._store.watch(_PREFIX, after=revision):
            network_id = change.key.removeprefix(_PREFIX)
            if change.value is None:
                yield network_id, None
                continue
            for one in self._codec.readable([Entry(key=change.key, value=change.value, revision=change.revision)]):
                yield network_id, one

    async def _shown(self, network_id: str) -> NetworkRecord | None:
        stored = await self.get(network_id)
        return stored.record if stored is not None and stored.record.phase is not NetworkPhase.CREATING else None

    async def _committed(self, *operations: Put | Delete) -> bool:
        try:
            await self._store.commit(*operations)
        except RevisionConflict:
            return False
        return True


def no_such_network(reference: str) -> NotFound:
    return NotFound(
        f"No such network: {reference[:260]}; NetworkService.ListNetworks shows those there are",
        resource_type="network",
        resource_name=reference[:260],
        reason="NETWORK_NOT_FOUND",
    )


def _ambiguous(reference: str, matches: Sequence[NetworkRecord]) -> InvalidArgument:
    shown = ", ".join(f"{one.id[:12]} ({one.name})" for one in matches[:_MAX_CANDIDATES])
    why = f"{reference!r} is the beginning of {len(matches)} ids: {shown}; give more of it, or a name"
    return InvalidArgument(violations=[Violation(field="network", description=why)], reason="AMBIGUOUS_NETWORK")


def _contended(network_id: str) -> Aborted:
    return Aborted(f"network {network_id[:12]!r}: others change its record all the time; repeat the request")


def _overlay_keys(network: NetworkRecord) -> list[str]:
    if network.overlay is None:
        return []
    subnets = [subnet.subnet for subnet in (network.ipv4, network.ipv6) if subnet is not None]
    return [f"{_OVERLAYS}vni/{network.overlay.vni}", *(f"{_OVERLAYS}subnet/{subnet}" for subnet in subnets)]


def _key(network_id: str) -> str:
    return f"{_PREFIX}{network_id}"


def _name_key(name: str) -> str:
    return f"{_NAMES}{name}"
