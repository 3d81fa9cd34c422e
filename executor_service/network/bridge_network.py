"""The node's network sandboxes: their records, their life from create to the last member's end, their endpoints."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import structlog

from common.errors import AlreadyExists, FailedPrecondition, Internal, ResourceExhausted, SlipwayError
from common.sqlite import Database
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.network import host_bridge, records, rtnetlink, wiring
from executor_service.network.config import BridgeConfig
from executor_service.network.mac import checked_mac
from executor_service.network.network import DEFAULT_NETWORK, gateway_order
from executor_service.network.networks import Networks
from executor_service.network.pins import PinDirectory
from executor_service.network.pool import SandboxPool
from executor_service.network.records import EndpointRecord, SandboxRecord
from executor_service.network.sandbox import Endpoint, Sandbox, SandboxNetwork
from executor_service.network.worker import in_own_thread, to_the_end
from executor_service.user_mapping import UserMapping
from executor_service.user_namespaces import Owner

_log = structlog.get_logger(__name__)

_PLAIN = EndpointSpec(network_id=DEFAULT_NETWORK)
_TOKEN_LENGTH = 9  # of base 32: 45 bits; with the prefix exactly the 15 characters of an interface's name
# EXFULL is the bridge's answer to port 1024 (BR_MAX_PORTS), ENOSPC unshare's at user.max_net_namespaces.
_EXHAUSTED = frozenset({errno.EXFULL, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class BridgeNetwork:
    """SandboxNetwork over bridges of our own. An async context manager: entering sets the host up, leaving takes
    nothing down, because containers outlive the executor. `database` must have `records.SCHEMA`. `mapping`: what most
    sandboxes are asked for, so the prepared ones belong to such user namespaces."""

    def __init__(self, config: BridgeConfig, database: Database, mapping: UserMapping | None = None) -> None:
        self._prepared_for = None if mapping is None else Owner(mapping=mapping)
        self._database = database
        self.networks = Networks(config, database)
        self._pins = PinDirectory(config.run_directory)
        self._pool = SandboxPool(size=config.pool_size, prepare=self._prepare)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Two instances in one network namespace have different bridges, hence different prefixes.
        self._prefix = f"sw{hashlib.sha256(config.bridge.encode()).hexdigest()[:4]}"

    async def __aenter__(self) -> Self:
        """Raises FailedPrecondition when the bridge, forwarding, nftables or the pin directory cannot be had."""
        async with AsyncExitStack() as undo:
            if await to_the_end(asyncio.to_thread(self._prepare_pins)):
                undo.push_async_callback(asyncio.to_thread, self._pins.remove)
            await self.networks.set_up()
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._discard(await self._pool.stop())

    async def create(
        self,
        sandbox_id: str,
        *,
        mode: NetworkMode,
        endpoints: Sequence[EndpointSpec] = (),
        owner: Owner | None = None,
    ) -> Sandbox:
        """See SandboxNetwork. Raises InvalidArgument for an address that no interface can have, and FailedPrecondition
        when the id is taken by a sandbox of another mode."""
        for endpoint in endpoints:
            checked_mac(endpoint.mac_address)
        async with self._lock(sandbox_id), AsyncExitStack() as undo:
            wanted = SandboxRecord(token=_new_token(), sandbox_id=sandbox_id, mode=mode)
            fits = tuple(endpoints) == (_PLAIN,) and owner == self._prepared_for
            ready = self._pool.take() if fits else None
            undo.push_async_callback(self._discard, {wanted.token} | ({ready.token} if ready else set()))
            record = await self._claimed(wanted, endpoints, ready)
            if ready is not None and record.token != ready.token:
                await self._discard({ready.token})
            if record.token == wanted.token:
                await self._wire(record, owner)
            elif record != replace(ready or wanted, sandbox_id=sandbox_id):
                record = await self._converge(record, endpoints)
            undo.pop_all()
            return self._sandbox(record)

    async def join(self, member: str, sandbox_id: str) -> Sandbox:
        async with self._lock(sandbox_id):
            record = await to_the_end(self._database.write(partial(self._joined, member=member, owner=sandbox_id)))
            return self._sandbox(record)

    async def leave(self, member: str) -> None:
        record = await self._database.read(partial(records.find_by_member, member=member))
        if record is None or record.sandbox_id is None:
            return
        async with self._lock(record.sandbox_id):
            abandoned = await to_the_end(self._database.write(partial(_leave, member=member, token=record.token)))
            if abandoned:
                await self._discard({record.token})

    async def connect(self, sandbox_id: str, endpoint: EndpointSpec) -> Sandbox:
        checked_mac(endpoint.mac_address)
        async with self._lock(sandbox_id):
            record = await self._standing(sandbox_id)
            kept = [one for one in record.endpoints if one.network_id == endpoint.network_id]
            if kept and kept[0].answers(endpoint):
                return self._sandbox(record)
            for one in kept:
                record = await self._detach(record, one)
            return self._sandbox(await self._attach(record, endpoint))

    async def disconnect(self, sandbox_id: str, network_id: str) -> Sandbox | None:
        async with self._lock(sandbox_id):
            record = await self._database.read(partial(records.find, sandbox_id=sandbox_id))
            if record is None:
                return None
            for endpoint in record.endpoints:
                if endpoint.network_id == network_id:
                    record = await self._detach(record, endpoint)
            return self._sandbox(record)

    async def list(self) -> Sequence[Sandbox]:
        recorded = await self._database.read(records.everything)
        return [self._sandbox(record) for record in recorded if record.sandbox_id is not None]

    async def reconcile(self, keep: Mapping[str, Sequence[EndpointSpec] | None]) -> None:
        """See SandboxNetwork. To be called before the first create; from then on sandboxes are prepared ahead."""
        await self._discard(await self._pool.stop())
        for record in await self._sweep(keep):
            if (endpoints := keep.get(str(record.sandbox_id))) is None:
                continue
            try:
                await self._converge(record, endpoints)
            except SlipwayError as error:
                _log.error("endpoints cannot be put right", sandbox=record.sandbox_id, error=error.message)
        self._pool.start()

    async def wait_prepared(self) -> None:
        """Return once as many sandboxes stand ready as are to be had."""
        await self._pool.wait_filled()

    async def teardown(self) -> None:
        """Destroy every sandbox, and remove the networks and the pin directory. Idempotent."""
        await self._pool.stop()
        await to_the_end(asyncio.to_thread(self._pins.prepare))
        await self._sweep({})
        await self.networks.teardown()
        await to_the_end(asyncio.to_thread(self._pins.remove))

    async def _sweep(self, keep: Mapping[str, Sequence[EndpointSpec] | None]) -> Sequence[SandboxRecord]:
        """The sandboxes that are left."""
        # What exists is listed before the records are read: whatever is being made has its record by then.
        pinned = await asyncio.to_thread(self._pins.tokens)
        interfaces = await asyncio.to_thread(host_bridge.interfaces_with_prefix, self._prefix)
        await to_the_end(self._database.write(partial(records.keep_members, members=set(keep))))
        recorded = await self._database.read(records.everything)
        inhabited = await self._database.read(records.inhabited)
        kept = {record.token: record for record in recorded if record.token in inhabited and self._exists(record)}
        gone = {record.token for record in recorded} - kept.keys()
        await self._discard(gone | (pinned - kept.keys()))
        named = {self._prefix + endpoint.token for record in kept.values() for endpoint in record.endpoints}
        strays = interfaces - named
        await to_the_end(asyncio.to_thread(_delete_interfaces, strays))
        _log.info("sandboxes reconciled", kept=len(kept), removed=len(gone), stray_interfaces=len(strays))
        return list(kept.values())

    def _lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    def _prepare_pins(self) -> bool:
        try:
            return self._pins.prepare()
        except OSError as error:
            raise FailedPrecondition(
                f"network namespaces cannot be kept in {self._pins.path}: {error}; the executor needs CAP_SYS_ADMIN",
                reason="BRIDGE_UNAVAILABLE",
            ) from error

    async def _claimed(
        self, wanted: SandboxRecord, endpoints: Sequence[EndpointSpec], ready: SandboxRecord | None
    ) -> SandboxRecord:
        claim = partial(self._claim, wanted=wanted, endpoints=endpoints, ready=ready)
        try:
            return await to_the_end(self._database.write(claim))
        except (ResourceExhausted, AlreadyExists):
            # Prepared sandboxes hold addresses too; whoever asks comes before whoever might.
            spare = self._pool.drain()
            if not spare:
                raise
            await self._discard(spare)
            return await to_the_end(self._database.write(claim))

    def _claim(
        self,
        connection: sqlite3.Connection,
        wanted: SandboxRecord,
        endpoints: Sequence[EndpointSpec],
        ready: SandboxRecord | None,
    ) -> SandboxRecord:
        """The sandbox's record if it stands already, else the ready one made its own, else a new one. On the
        database's thread, in its transaction."""
        assert wanted.sandbox_id is not None
        existing = records.find(connection, wanted.sandbox_id)
        if existing is not None and self._exists(existing):
            _check_same(existing, wanted)
            record = existing
        else:
            if existing is not None:
                # Left by a crash before its pin. Its token is not used again: the old interface may still be dying.
                records.delete(connection, {existing.token})
            if ready is not None and self._exists(ready):
                records.give(connection, token=ready.token, sandbox_id=wanted.sandbox_id)
                record = replace(ready, sandbox_id=wanted.sandbox_id)
            else:
                record = self._record(connection, wanted, endpoints)
        records.add_member(connection, token=record.token, member=wanted.sandbox_id)
        return record

    def _record(
        self, connection: sqlite3.Connection, wanted: SandboxRecord, endpoints: Sequence[EndpointSpec]
    ) -> SandboxRecord:
        records.insert(connection, wanted)
        record = wanted
        for spec in endpoints:
            network, _ = self.networks.get(spec.network_id)
            record = records.add_endpoint(connection, record, token=_new_token(), spec=spec, network=network)
        return record

    def _joined(self, connection: sqlite3.Connection, member: str, owner: str) -> SandboxRecord:
        record = records.find(connection, owner)
        if record is None or not self._exists(record):
            raise FailedPrecondition(
                f"container '{owner}' has no network of its own to share: it does not run; start it first",
                resource_type="sandbox",
                resource_name=owner,
                reason="CANNOT_JOIN_NAMESPACE",
            )
        records.add_member(connection, token=record.token, member=member)
        return record

    async def _prepare(self) -> SandboxRecord:
        """A finished sandbox on the default network that is nobody's yet."""
        async with AsyncExitStack() as undo:
            wanted = SandboxRecord(token=_new_token(), sandbox_id=None, mode=NetworkMode.BRIDGE)
            undo.push_async_callback(self._discard, {wanted.token})
            record = await to_the_end(self._database.write(partial(self._record, wanted=wanted, endpoints=(_PLAIN,))))
            await self._wire(record, self._prepared_for)
            undo.pop_all()
            return record

    async def _standing(self, sandbox_id: str) -> SandboxRecord:
        record = await self._database.read(partial(records.find, sandbox_id=sandbox_id))
        if record is None or record.mode is not NetworkMode.BRIDGE or not self._exists(record):
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
        token = _new_token()
        add = partial(records.add_endpoint, record=record, token=token, spec=spec, network=network)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._forget_endpoint, token)
            attached = await to_the_end(self._database.write(add))
            (endpoint,) = (one for one in attached.endpoints if one.token == token)
            work = partial(
                wiring.attach, self._pins, record.token, self._attachment(endpoint), self._gateways(attached)
            )
            await self._in_kernel(attached, work)
            undo.pop_all()
        return attached

    async def _detach(self, record: SandboxRecord, endpoint: EndpointRecord) -> SandboxRecord:
        """The interface first, then the lease: a crash between leaves a record."""
        left = replace(record, endpoints=tuple(one for one in record.endpoints if one is not endpoint))
        interface = self._prefix + endpoint.token
        await self._in_kernel(left, partial(wiring.detach, self._pins, record.token, interface, self._gateways(left)))
        await to_the_end(self._forget_endpoint(endpoint.token))
        return left

    async def _forget_endpoint(self, token: str) -> None:
        await self._database.write(partial(records.delete_endpoint, token=token))

    async def _wire(self, record: SandboxRecord, owner: Owner | None) -> None:
        if record.mode is NetworkMode.HOST:
            return
        attachments = [self._attachment(endpoint) for endpoint in record.endpoints]
        work = partial(wiring.wire, self._pins, record.token, attachments, self._gateways(record), owner)
        await self._in_kernel(record, work)

    async def _in_kernel(self, record: SandboxRecord, work: Callable[[], None]) -> None:
        try:
            await to_the_end(in_own_thread(work))
        except OSError as error:
            raise self._wiring_error(error, record) from error

    def _wiring_error(self, error: OSError, record: SandboxRecord) -> SlipwayError:
        message = f"sandbox '{record.sandbox_id}': {error.strerror or error}"
        if error.errno in _EXHAUSTED:
            return ResourceExhausted(f"{message}; a limit of the kernel is reached, remove containers or raise it")
        if error.errno in {errno.EPERM, errno.EACCES}:
            return FailedPrecondition(
                f"{message}; the executor needs CAP_NET_ADMIN and CAP_SYS_ADMIN", reason="BRIDGE_UNAVAILABLE"
            )
        for endpoint in record.endpoints:
            network = self.networks.find(endpoint.network_id)
            if network is not None and not self.networks.stands(network.id):
                return FailedPrecondition(
                    f"{message}; bridge '{network.bridge}' is gone, restart the executor to have it made again",
                    reason="BRIDGE_UNAVAILABLE",
                )
        return Internal(message)

    def _attachment(self, endpoint: EndpointRecord) -> wiring.Attachment:
        network, bridge = self.networks.get(endpoint.network_id)
        return wiring.Attachment(
            bridge=bridge.index,
            host_interface=self._prefix + endpoint.token,
            mtu=bridge.mtu,
            endpoint=self._endpoint(endpoint),
            isolated=not network.icc,
        )

    def _gateways(self, record: SandboxRecord) -> wiring.Gateways:
        found = {endpoint.network_id: endpoint for endpoint in record.endpoints}
        order = gateway_order(
            (endpoint.gateway_priority, network)
            for endpoint in record.endpoints
            if (network := self.networks.find(endpoint.network_id)) is not None
        )
        ipv4 = next((found[network.id] for network in order if network.ipv4 is not None), None)
        ipv6 = next((found[network.id] for network in order if network.ipv6 is not None), None)
        return wiring.Gateways(
            ipv4=self._endpoint(ipv4) if ipv4 is not None else None,
            ipv6=self._endpoint(ipv6) if ipv6 is not None else None,
        )

    async def _discard(self, tokens: set[str]) -> None:
        """Let namespaces go, then free their addresses; in this order, so that a crash between leaves a record."""

        if not tokens:
            return

        async def discard() -> None:
            await asyncio.to_thread(_unpin, self._pins, tokens)
            await self._database.write(partial(records.delete, tokens=tokens))

        await to_the_end(discard())

    def _exists(self, record: SandboxRecord) -> bool:
        return record.mode is NetworkMode.HOST or self._pins.holds(record.token)

    def _sandbox(self, record: SandboxRecord) -> Sandbox:
        assert record.sandbox_id is not None
        return Sandbox(
            id=record.sandbox_id,
            mode=record.mode,
            netns_path="" if record.mode is NetworkMode.HOST else str(self._pins.of(record.token)),
            endpoints=tuple(self._endpoint(endpoint) for endpoint in record.endpoints),
        )

    def _endpoint(self, record: EndpointRecord) -> Endpoint:
        network = self.networks.find(record.network_id)
        ipv4, ipv6 = (network.ipv4, network.ipv6) if network is not None else (None, None)
        return Endpoint(
            network_id=record.network_id,
            network_name=network.name if network is not None else "",
            interface=record.interface,
            mac_address=record.mac_address,
            ipv4_address=record.ipv4_address,
            ipv4_prefix_length=ipv4.subnet.prefixlen if ipv4 is not None else 0,
            ipv4_gateway=str(ipv4.gateway) if ipv4 is not None else "",
            ipv6_address=record.ipv6_address,
            ipv6_prefix_length=ipv6.subnet.prefixlen if ipv6 is not None else 0,
            ipv6_gateway=str(ipv6.gateway) if ipv6 is not None else "",
        )


def _new_token() -> str:
    return base64.b32encode(secrets.token_bytes(_TOKEN_LENGTH)).decode().lower()[:_TOKEN_LENGTH]


def _check_same(existing: SandboxRecord, wanted: SandboxRecord) -> None:
    if existing.mode is wanted.mode:
        return
    raise FailedPrecondition(
        f"sandbox '{existing.sandbox_id}' exists with mode {existing.mode}; it must go before it is made with mode "
        f"{wanted.mode}",
        reason="SANDBOX_DIFFERS",
        resource_type="sandbox",
        resource_name=str(existing.sandbox_id),
    )


def _leave(connection: sqlite3.Connection, member: str, token: str) -> bool:
    """Whether nobody is left in the sandbox."""
    records.remove_member(connection, member)
    return not records.members(connection, token)


def _unpin(pins: PinDirectory, tokens: set[str]) -> None:
    for token in tokens:
        pins.unpin(token)


def _delete_interfaces(names: set[str]) -> None:
    with rtnetlink.Channel() as kernel:
        for name in names:
            # Gone meanwhile: its namespace was being collected.
            kernel.send([rtnetlink.delete_link(name)], tolerate=frozenset({errno.ENODEV}))


_: type[SandboxNetwork] = BridgeNetwork
