"""The node's network sandboxes: their records, their life from create to the last member's end, their endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import structlog

from common.errors import AlreadyExists, FailedPrecondition, ResourceExhausted, SlipwayError
from common.sqlite import Database
from executor_service.container import AS_THE_HOST, EndpointSpec, NameResolution, NetworkMode
from executor_service.network import freed_addresses, records
from executor_service.network.config import BridgeConfig
from executor_service.network.mac import checked_mac
from executor_service.network.networks import Networks
from executor_service.network.prepared import PreparedSandboxes
from executor_service.network.records import EndpointRecord, SandboxRecord
from executor_service.network.sandbox import Sandbox, SandboxNetwork
from executor_service.network.sandbox_claims import SandboxClaims, leave, new_token
from executor_service.network.sandbox_kernel import SandboxKernel
from executor_service.threads import to_the_end
from executor_service.user_mapping import UserMapping
from executor_service.user_namespaces import Owner

_log = structlog.get_logger(__name__)


class Sandboxes:
    """SandboxNetwork over this host's kernel. An async context manager: entering sets the host up, leaving takes
    nothing down, because containers outlive the executor. `database` must have `records.SCHEMA`. `mapping`: what most
    sandboxes are asked for, so the prepared ones belong to such user namespaces."""

    def __init__(self, config: BridgeConfig, database: Database, mapping: UserMapping | None = None) -> None:
        self._database = database
        self.networks = Networks(config, database)
        self._kernel = SandboxKernel(config, self.networks)
        self._claims = SandboxClaims(network=lambda wanted: self.networks.get(wanted)[0], exists=self._kernel.exists)
        self._prepared = PreparedSandboxes(
            size=config.pool_size,
            mapping=mapping,
            database=database,
            networks=self.networks,
            kernel=self._kernel,
            claims=self._claims,
            discard=self._discard,
        )
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        """Raises FailedPrecondition when the bridge, forwarding, nftables or the pin directory cannot be had."""
        async with AsyncExitStack() as undo:
            if await self._kernel.prepare():
                undo.push_async_callback(asyncio.to_thread, self._kernel.pins.remove)
            await self.networks.set_up()
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._discard(await self._prepared.stop())

    async def create(
        self,
        sandbox_id: str,
        *,
        mode: NetworkMode,
        endpoints: Sequence[EndpointSpec] = (),
        owner: Owner | None = None,
        resolution: NameResolution = AS_THE_HOST,
    ) -> Sandbox:
        """See SandboxNetwork. Raises InvalidArgument for an address that no interface can have, and FailedPrecondition
        when the id is taken by a sandbox of another mode."""
        for endpoint in endpoints:
            checked_mac(endpoint.mac_address)
        async with self._lock(sandbox_id), AsyncExitStack() as undo:
            wanted = SandboxRecord(token=new_token(), sandbox_id=sandbox_id, mode=mode, resolution=resolution)
            taken = {wanted.token}
            undo.push_async_callback(self._discard, taken)
            for ready in self._prepared.offers(endpoints, owner):
                if ready is not None:
                    taken.add(ready.token)
                record = await self._claimed(wanted, endpoints, ready)
                if ready is not None and (record is None or record.token != ready.token):
                    taken.discard(ready.token)
                    await self._prepared.give_back(ready)
                if record is not None:
                    break
            assert record is not None
            if record.token == wanted.token:
                await self._kernel.wire(record, owner)
            elif ready is None or record.token != ready.token:
                record = await self._converge(record, endpoints)
            elif not ready.endpoints:
                await self._kernel.furnish(record)
            undo.pop_all()
            return self._kernel.sandbox(record)

    async def join(self, member: str, sandbox_id: str) -> Sandbox:
        async with self._lock(sandbox_id):
            record = await to_the_end(self._database.write(partial(self._claims.join, member=member, owner=sandbox_id)))
            return self._kernel.sandbox(record)

    async def leave(self, member: str) -> None:
        record = await self._database.read(partial(records.find_by_member, member=member))
        if record is None or record.sandbox_id is None:
            return
        async with self._lock(record.sandbox_id):
            abandoned = await to_the_end(self._database.write(partial(leave, member=member, token=record.token)))
            if abandoned:
                await self._discard({record.token})

    async def forget(self, container_id: str) -> None:
        await self._database.write(partial(freed_addresses.forget_container, container=container_id))

    async def connect(self, sandbox_id: str, endpoint: EndpointSpec) -> Sandbox:
        checked_mac(endpoint.mac_address)
        async with self._lock(sandbox_id):
            record = await self._standing(sandbox_id)
            kept = [one for one in record.endpoints if one.network_id == endpoint.network_id]
            if kept and kept[0].answers(endpoint):
                return self._kernel.sandbox(record)
            for one in kept:
                record = await self._detach(record, one)
            return self._kernel.sandbox(await self._attach(record, endpoint))

    async def disconnect(self, sandbox_id: str, network_id: str) -> Sandbox | None:
        async with self._lock(sandbox_id):
            record = await self._database.read(partial(records.find, sandbox_id=sandbox_id))
            if record is None:
                return None
            for endpoint in record.endpoints:
                if endpoint.network_id == network_id:
                    record = await self._detach(record, endpoint)
            return self._kernel.sandbox(record)

    async def list(self) -> Sequence[Sandbox]:
        recorded = await self._database.read(records.everything)
        return [self._kernel.sandbox(record) for record in recorded if record.sandbox_id is not None]

    async def reconcile(self, keep: Mapping[str, Sequence[EndpointSpec] | None]) -> None:
        """See SandboxNetwork. To be called before the first create; from then on sandboxes are prepared ahead."""
        await self._discard(await self._prepared.stop())
        kept = await self._sweep(keep)
        there = await self._kernel.interfaces()
        for record in kept:
            if (endpoints := keep.get(str(record.sandbox_id))) is None:
                continue
            try:
                await self._kernel.restore_interfaces(record, there)
                await self._converge(record, endpoints)
            except SlipwayError as error:
                _log.error("endpoints cannot be put right", sandbox=record.sandbox_id, error=error.message)
        await self._kernel.plug_in_again(await self._database.read(records.everything))
        self._prepared.start()

    async def restore_bridges(self) -> None:
        """Make bridges again that somebody deleted, and plug in what was on them. Raises FailedPrecondition, OSError
        when one is not to be had."""
        try:
            await self.networks.restore_bridges()
        finally:
            await self._kernel.plug_in_again(await self._database.read(records.everything))

    async def wait_prepared(self) -> None:
        """Return once as many sandboxes stand ready as are to be had."""
        await self._prepared.wait_filled()

    async def teardown(self) -> None:
        """Destroy every sandbox, and remove the networks and the pin directory. Idempotent."""
        await self._prepared.stop()
        await self._kernel.prepare()
        await self._sweep({})
        await self.networks.teardown()
        await to_the_end(asyncio.to_thread(self._kernel.pins.remove))

    async def _sweep(self, keep: Mapping[str, Sequence[EndpointSpec] | None]) -> Sequence[SandboxRecord]:
        """The sandboxes that are left."""
        # What exists is listed before the records are read: whatever is being made has its record by then.
        pinned = await asyncio.to_thread(self._kernel.pins.tokens)
        interfaces = await self._kernel.interfaces()
        await to_the_end(self._database.write(partial(records.keep_members, members=set(keep))))
        recorded = await self._database.read(records.everything)
        inhabited = await self._database.read(records.inhabited)
        kept = {
            record.token: record for record in recorded if record.token in inhabited and self._kernel.exists(record)
        }
        gone = {record.token for record in recorded} - kept.keys()
        await self._discard(gone | (pinned - kept.keys()))
        strays = await self._kernel.delete_strays(interfaces, kept.values())
        _log.info("sandboxes reconciled", kept=len(kept), removed=len(gone), stray_interfaces=len(strays))
        return list(kept.values())

    def _lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    async def _claimed(
        self, wanted: SandboxRecord, endpoints: Sequence[EndpointSpec], ready: SandboxRecord | None
    ) -> SandboxRecord | None:
        claim = partial(self._claims.claim, wanted=wanted, endpoints=endpoints, ready=ready)
        try:
            return await to_the_end(self._database.write(claim))
        except (ResourceExhausted, AlreadyExists):
            # Prepared sandboxes hold addresses too; whoever asks comes before whoever might.
            spare = self._prepared.drain()
            if not spare:
                raise
            await self._discard(spare)
            return await to_the_end(self._database.write(claim))

    async def _standing(self, sandbox_id: str) -> SandboxRecord:
        record = await self._database.read(partial(records.find, sandbox_id=sandbox_id))
        if record is None or record.mode is not NetworkMode.BRIDGE or not self._kernel.exists(record):
            raise FailedPrecondition(
                f"container '{sandbox_id}' has no network sandbox that could be connected",
                resource_type="sandbox",
                resource_name=sandbox_id,
                reason="NO_SANDBOX",
            )
        return record

    async def _converge(self, record: SandboxRecord, endpoints: Sequence[EndpointSpec]) -> SandboxRecord:
        """Detach a sandbox that stands from what is asked for no more, and attach it to what is new."""
        if record.mode is not NetworkMode.BRIDGE:
            return record
        for kept in record.endpoints:
            if not any(kept.answers(spec) for spec in endpoints):
                record = await self._detach(record, kept)
        attached = {kept.network_id for kept in record.endpoints}
        for spec in endpoints:
            if spec.network_id not in attached:
                record = await self._attach(record, spec)
        return record

    async def _attach(self, record: SandboxRecord, spec: EndpointSpec) -> SandboxRecord:
        network, _ = self.networks.get(spec.network_id)
        token = new_token()
        add = partial(records.add_endpoint, record=record, token=token, spec=spec, network=network)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._forget_endpoint, token)
            attached = await to_the_end(self._database.write(add))
            (endpoint,) = (one for one in attached.endpoints if one.token == token)
            await self._kernel.attach(attached, endpoint)
            undo.pop_all()
        return attached

    async def _detach(self, record: SandboxRecord, endpoint: EndpointRecord) -> SandboxRecord:
        """The interface first, then the lease: a crash between leaves a record."""
        left = replace(record, endpoints=tuple(one for one in record.endpoints if one is not endpoint))
        await self._kernel.detach(left, endpoint)
        await to_the_end(self._forget_endpoint(endpoint.token))
        return left

    async def _forget_endpoint(self, token: str) -> None:
        await self._database.write(partial(records.delete_endpoint, token=token))

    async def _discard(self, tokens: set[str]) -> None:
        """Let namespaces go, then free their addresses; in this order, so that a crash between leaves a record."""

        if not tokens:
            return

        async def discard() -> None:
            if not all(network.through_host for network in self.networks.list()):
                for record in await self._database.read(partial(records.with_tokens, tokens=tokens)):
                    await self._kernel.unplug(record)
            await self._kernel.unpin(tokens)
            await self._database.write(partial(records.delete, tokens=tokens))

        await to_the_end(discard())


_: type[SandboxNetwork] = Sandboxes
