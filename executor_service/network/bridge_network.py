"""The node's default network: sandboxes on one dual-stack bridge, their records, their life from create to destroy."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import secrets
import socket
import sqlite3
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import structlog

from common.errors import FailedPrecondition, Internal, ResourceExhausted, SlipwayError
from common.sqlite import Database
from executor_service.container import NetworkMode
from executor_service.network import firewall, forwarding, host_bridge, records, rtnetlink, wiring
from executor_service.network.config import BridgeConfig
from executor_service.network.ipam import AddressPool
from executor_service.network.mac import checked_mac, random_mac
from executor_service.network.pins import PinDirectory
from executor_service.network.pool import SandboxPool
from executor_service.network.records import SandboxRecord
from executor_service.network.sandbox import Endpoint, Sandbox, SandboxNetwork
from executor_service.network.worker import in_own_thread, to_the_end

_log = structlog.get_logger(__name__)

_NETWORK = "bridge"
_INTERFACE = "eth0"
_TOKEN_LENGTH = 9  # of base 32: 45 bits; with the prefix exactly the 15 characters of an interface's name
# EXFULL is the bridge's answer to port 1024 (BR_MAX_PORTS), ENOSPC unshare's at user.max_net_namespaces.
_EXHAUSTED = frozenset({errno.EXFULL, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class BridgeNetwork:
    """SandboxNetwork over a bridge of our own. An async context manager: entering sets the host up, leaving takes
    nothing down, because containers outlive the executor. `database` must have `records.SCHEMA`."""

    def __init__(self, config: BridgeConfig, database: Database) -> None:
        self._config = config
        self._database = database
        self._pins = PinDirectory(config.run_directory)
        self._bridge: host_bridge.Bridge | None = None
        self._pool = SandboxPool(size=config.pool_size, prepare=self._prepare)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Two instances in one network namespace have different bridges, hence different prefixes.
        self._prefix = f"sw{hashlib.sha256(config.bridge.encode()).hexdigest()[:4]}"

    async def __aenter__(self) -> Self:
        """Raises FailedPrecondition when the bridge, forwarding, nftables or the pin directory cannot be had."""
        self._bridge = await to_the_end(asyncio.to_thread(self._set_up))
        _log.info("bridge network ready", bridge=self._config.bridge, mtu=self._bridge.mtu)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._discard(await self._pool.stop())
        self._bridge = None

    async def create(self, sandbox_id: str, *, mode: NetworkMode, mac_address: str = "") -> Sandbox:
        """See SandboxNetwork. Raises InvalidArgument for a MAC address that no interface can have, and
        FailedPrecondition when the id is taken by a sandbox of another mode or MAC address."""
        mac = checked_mac(mac_address)
        async with self._lock(sandbox_id), AsyncExitStack() as undo:
            wanted = SandboxRecord(token=_new_token(), sandbox_id=sandbox_id, mode=mode, mac_address=mac)
            ready = self._pool.take() if mode is NetworkMode.BRIDGE and not mac else None
            undo.push_async_callback(self._discard, {wanted.token} | ({ready.token} if ready else set()))
            record = await self._claimed(wanted, ready)
            if record.token == wanted.token:
                await self._wire(record)
            if ready is not None and record.token != ready.token:
                await self._discard({ready.token})
            undo.pop_all()
            return self._sandbox(record)

    async def destroy(self, sandbox_id: str) -> None:
        async with self._lock(sandbox_id):
            record = await self._database.read(partial(records.find, sandbox_id=sandbox_id))
            if record is not None:
                await self._discard({record.token})

    async def list(self) -> list[Sandbox]:
        recorded = await self._database.read(records.everything)
        return [self._sandbox(record) for record in recorded if record.sandbox_id is not None]

    async def reconcile(self, keep: set[str]) -> None:
        """See SandboxNetwork. To be called before the first create; from then on sandboxes are prepared ahead."""
        await self._discard(await self._pool.stop())
        await self._sweep(keep)
        self._pool.start()

    async def wait_prepared(self) -> None:
        """Return once as many sandboxes stand ready as are to be had."""
        await self._pool.wait_filled()

    async def teardown(self) -> None:
        """Destroy every sandbox, and remove the table, the bridge and the pin directory. Idempotent."""
        await self._pool.stop()
        await to_the_end(asyncio.to_thread(self._pins.prepare))
        await self._sweep(set())
        await to_the_end(asyncio.to_thread(self._take_down))

    async def _sweep(self, keep: set[str]) -> None:
        # What exists is listed before the records are read: whatever is being made has its record by then.
        pinned = await asyncio.to_thread(self._pins.tokens)
        interfaces = await asyncio.to_thread(host_bridge.interfaces_with_prefix, self._prefix)
        recorded = await self._database.read(records.everything)
        kept = {record.token for record in recorded if record.sandbox_id in keep and self._exists(record)}
        gone = {record.token for record in recorded} - kept
        await self._discard(gone | (pinned - kept))
        strays = interfaces - {self._prefix + token for token in kept}
        await to_the_end(asyncio.to_thread(_delete_interfaces, strays))
        _log.info("sandboxes reconciled", kept=len(kept), removed=len(gone), stray_interfaces=len(strays))

    def _lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    def _set_up(self) -> host_bridge.Bridge:
        try:
            with ExitStack() as undo:
                if self._pins.prepare():
                    undo.callback(self._pins.remove)
                forwarding.enable_forwarding()
                bridge = host_bridge.ensure_bridge(self._config)
                if bridge.created:
                    undo.callback(host_bridge.delete_bridge, self._config)
                firewall.install_table(self._config)
                undo.pop_all()
                return bridge
        except OSError as error:
            raise FailedPrecondition(
                f"bridge '{self._config.bridge}' cannot be set up: {error}; the executor needs root's CAP_NET_ADMIN "
                "and CAP_SYS_ADMIN",
                reason="BRIDGE_UNAVAILABLE",
            ) from error

    def _take_down(self) -> None:
        firewall.remove_table(self._config)
        host_bridge.delete_bridge(self._config)
        self._pins.remove()

    async def _claimed(self, wanted: SandboxRecord, ready: SandboxRecord | None) -> SandboxRecord:
        claim = partial(self._claim, wanted=wanted, ready=ready)
        try:
            return await to_the_end(self._database.write(claim))
        except ResourceExhausted:
            # Prepared sandboxes hold addresses too; whoever asks comes before whoever might.
            spare = self._pool.drain()
            if not spare:
                raise
            await self._discard(spare)
            return await to_the_end(self._database.write(claim))

    def _claim(
        self, connection: sqlite3.Connection, wanted: SandboxRecord, ready: SandboxRecord | None
    ) -> SandboxRecord:
        """The sandbox's record if it stands already, else the ready one made its own, else a new one. On the
        database's thread, in its transaction."""
        assert wanted.sandbox_id is not None
        existing = records.find(connection, wanted.sandbox_id)
        if existing is not None and self._exists(existing):
            _check_same(existing, wanted)
            return existing
        if existing is not None:
            # Left by a crash before its pin. Its token is not used again: the old interface may still be dying.
            records.delete(connection, {existing.token})
        if ready is not None and self._exists(ready):
            records.give(connection, token=ready.token, sandbox_id=wanted.sandbox_id)
            return replace(ready, sandbox_id=wanted.sandbox_id)
        return self._record(connection, wanted)

    def _record(self, connection: sqlite3.Connection, wanted: SandboxRecord) -> SandboxRecord:
        if wanted.mode is not NetworkMode.BRIDGE:
            records.insert(connection, wanted)
            return wanted
        return records.insert_with_addresses(
            connection,
            replace(wanted, mac_address=wanted.mac_address or random_mac()),
            network=_NETWORK,
            subnets=(self._config.ipv4_subnet, self._config.ipv6_subnet),
        )

    async def _prepare(self) -> SandboxRecord:
        """A finished sandbox on the bridge that is nobody's yet."""
        async with AsyncExitStack() as undo:
            wanted = SandboxRecord(token=_new_token(), sandbox_id=None, mode=NetworkMode.BRIDGE)
            undo.push_async_callback(self._discard, {wanted.token})
            record = await to_the_end(self._database.write(partial(self._record, wanted=wanted)))
            await self._wire(record)
            undo.pop_all()
            return record

    async def _wire(self, record: SandboxRecord) -> None:
        if record.mode is NetworkMode.HOST:
            return
        attachment = self._attachment(record)
        try:
            await to_the_end(in_own_thread(partial(wiring.wire, self._pins, record.token, attachment)))
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
        if record.mode is NetworkMode.BRIDGE and not self._bridge_stands():
            return FailedPrecondition(
                f"{message}; bridge '{self._config.bridge}' is gone, restart the executor to have it made again",
                reason="BRIDGE_UNAVAILABLE",
            )
        return Internal(message)

    def _bridge_stands(self) -> bool:
        try:
            return self._bridge is not None and socket.if_nametoindex(self._config.bridge) == self._bridge.index
        except OSError:
            return False

    def _attachment(self, record: SandboxRecord) -> wiring.Attachment | None:
        endpoint = self._endpoint(record)
        if endpoint is None:
            return None
        if self._bridge is None:
            raise FailedPrecondition("the bridge network is not set up", reason="BRIDGE_UNAVAILABLE")
        return wiring.Attachment(
            bridge=self._bridge.index,
            host_interface=self._prefix + record.token,
            mtu=self._bridge.mtu,
            endpoint=endpoint,
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
            endpoint=self._endpoint(record),
        )

    def _endpoint(self, record: SandboxRecord) -> Endpoint | None:
        if record.mode is not NetworkMode.BRIDGE:
            return None
        ipv4, ipv6 = AddressPool(self._config.ipv4_subnet), AddressPool(self._config.ipv6_subnet)
        return Endpoint(
            network=_NETWORK,
            interface=_INTERFACE,
            mac_address=record.mac_address,
            ipv4_address=record.ipv4_address,
            ipv4_prefix_length=ipv4.subnet.prefixlen,
            ipv4_gateway=str(ipv4.gateway),
            ipv6_address=record.ipv6_address,
            ipv6_prefix_length=ipv6.subnet.prefixlen,
            ipv6_gateway=str(ipv6.gateway),
        )


def _new_token() -> str:
    return base64.b32encode(secrets.token_bytes(_TOKEN_LENGTH)).decode().lower()[:_TOKEN_LENGTH]


def _check_same(existing: SandboxRecord, wanted: SandboxRecord) -> None:
    if existing.mode is wanted.mode and wanted.mac_address in {"", existing.mac_address}:
        return
    raise FailedPrecondition(
        f"sandbox '{existing.sandbox_id}' exists with mode {existing.mode} and MAC address "
        f"'{existing.mac_address}'; destroy it before it is made with mode {wanted.mode} and "
        f"'{wanted.mac_address}'",
        reason="SANDBOX_DIFFERS",
        resource_type="sandbox",
        resource_name=str(existing.sandbox_id),
    )


def _unpin(pins: PinDirectory, tokens: set[str]) -> None:
    for token in tokens:
        pins.unpin(token)


def _delete_interfaces(names: set[str]) -> None:
    with rtnetlink.Channel() as kernel:
        for name in names:
            # Gone meanwhile: its namespace was being collected.
            kernel.send([rtnetlink.delete_link(name)], tolerate=frozenset({errno.ENODEV}))


_: type[SandboxNetwork] = BridgeNetwork
