"""Sandboxes in the kernel: what their records ask for, made and taken down there; what is refused is said in words."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Collection, Iterable
from functools import partial

import structlog

from common.errors import FailedPrecondition, Internal, ResourceExhausted, SlipwayError
from executor_service.container import NetworkMode
from executor_service.network import host_bridge, rtnetlink, wiring
from executor_service.network.bridge_driver import BridgeAttachment
from executor_service.network.config import BridgeConfig
from executor_service.network.network import Driver, gateway_order
from executor_service.network.networks import Networks
from executor_service.network.pins import PinDirectory
from executor_service.network.records import EndpointRecord, SandboxRecord
from executor_service.network.sandbox import Endpoint, Sandbox
from executor_service.threads import in_own_thread, to_the_end
from executor_service.user_namespaces import Owner

_log = structlog.get_logger(__name__)

# EXFULL is the bridge's answer to port 1024 (BR_MAX_PORTS), ENOSPC unshare's at user.max_net_namespaces.
_EXHAUSTED = frozenset({errno.EXFULL, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class SandboxKernel:
    """Nothing is remembered here: the records and the networks are given, the pins are files."""

    def __init__(self, config: BridgeConfig, networks: Networks) -> None:
        self._networks = networks
        self.pins = PinDirectory(config.run_directory)
        # Two instances in one network namespace have different bridges, hence different prefixes.
        self._prefix = f"sw{hashlib.sha256(config.bridge.encode()).hexdigest()[:4]}"

    async def prepare(self) -> bool:
        """Have the directory of the pins; returns whether that is new. Raises FailedPrecondition."""
        try:
            return await to_the_end(asyncio.to_thread(self.pins.prepare))
        except OSError as error:
            raise FailedPrecondition(
                f"network namespaces cannot be kept in {self.pins.path}: {error}; the executor needs CAP_SYS_ADMIN",
                reason="BRIDGE_UNAVAILABLE",
            ) from error

    async def wire(self, record: SandboxRecord, owner: Owner | None) -> None:
        """Make the namespace with its endpoints and pin it. Raises FailedPrecondition, ResourceExhausted, Internal, as
        do the others; nothing is left then."""
        if record.mode is NetworkMode.HOST:
            return
        attachments = [self._attachment(endpoint) for endpoint in record.endpoints]
        work = partial(wiring.wire, self.pins, record.token, attachments, self._gateways(record), owner)
        await self._run(record, work)

    async def wire_bare(self, record: SandboxRecord, owner: Owner | None) -> None:
        """Make a namespace with an interface that is on no network, and pin it."""
        await self._run(record, partial(wiring.wire_bare, self.pins, record.token, self._prefix + record.token, owner))

    async def furnish(self, record: SandboxRecord) -> None:
        """Make such a one what its record tells."""
        first, *others = [self._attachment(endpoint) for endpoint in record.endpoints]
        assert isinstance(first, BridgeAttachment)
        gateways = self._gateways(record)
        await self._run(record, partial(wiring.furnish, self.pins, record.token, first, others, gateways))

    async def attach(self, record: SandboxRecord, endpoint: EndpointRecord) -> None:
        """Plug one of the record's endpoints in."""
        attachment = self._attachment(endpoint)
        work = partial(wiring.attach, self.pins, record.token, attachment, self._gateways(record))
        await self._run(record, work)

    async def detach(self, left: SandboxRecord, endpoint: EndpointRecord) -> None:
        """Unplug an endpoint; `left` is the record without it. Idempotent."""
        attachment = self._networks.attachment(self.endpoint(endpoint), name=self._prefix + endpoint.token)
        await self._run(left, partial(wiring.detach, self.pins, left.token, attachment, self._gateways(left)))

    async def restore_interfaces(self, record: SandboxRecord, there: Collection[str]) -> None:
        """Make those anew that are not `there`, on their bridges, with the addresses that they have. At start-up
        alone, while nobody else attaches."""
        for endpoint in record.endpoints:
            if self._networks.bridge(endpoint.network_id) and self._prefix + endpoint.token not in there:
                await self.attach(record, endpoint)
                _log.warning("interface was deleted by somebody and is made again", sandbox=record.sandbox_id)

    async def plug_in_again(self, sandboxes: Iterable[SandboxRecord]) -> None:
        """What is on no bridge, or on another than its network's."""
        masters = await asyncio.to_thread(host_bridge.masters_by_prefix, self._prefix)
        for record in sandboxes:
            for endpoint in record.endpoints:
                bridge = self._networks.bridge(endpoint.network_id)
                name = self._prefix + endpoint.token
                if bridge is not None and masters.get(name, bridge.index) != bridge.index:
                    await self._plug_in(record, endpoint)

    async def _plug_in(self, record: SandboxRecord, endpoint: EndpointRecord) -> None:
        """Its container may be ending just now: then there is nothing to plug in."""
        try:
            attachment = self._attachment(endpoint)
            assert isinstance(attachment, BridgeAttachment)
            await self._run(record, attachment.plug_in)
            _log.warning("interface is plugged in again", sandbox=record.sandbox_id)
        except SlipwayError as error:
            _log.warning("interface cannot be plugged in", sandbox=record.sandbox_id, error=error.message)

    async def unplug(self, record: SandboxRecord) -> None:
        """Delete at once what would not go with an interface of the host's: its hardware address is free for the next
        one only then. Idempotent; what fails is left to the kernel, which collects the namespace later."""
        links = [one for one in record.endpoints if not self._networks.through_host(one.network_id)]
        if not links:
            return
        attachments = [self._networks.attachment(self.endpoint(one), name=self._prefix + one.token) for one in links]
        try:
            await in_own_thread(partial(wiring.unplug, self.pins, record.token, attachments))
        except OSError as error:
            _log.warning("interfaces left to the kernel", sandbox=record.sandbox_id, error=str(error))

    async def unpin(self, tokens: Iterable[str]) -> None:
        """Let namespaces go. Idempotent."""
        await asyncio.to_thread(self._unpin, set(tokens))

    async def interfaces(self) -> set[str]:
        """Every interface of ours on the host, by name."""
        return await asyncio.to_thread(host_bridge.interfaces_with_prefix, self._prefix)

    async def delete_strays(self, interfaces: set[str], kept: Iterable[SandboxRecord]) -> set[str]:
        """Those of `interfaces` that belong to none of the records; they are deleted."""
        named = {self._prefix + endpoint.token for record in kept for endpoint in record.endpoints}
        strays = interfaces - named
        await to_the_end(asyncio.to_thread(_delete_interfaces, strays))
        return strays

    def exists(self, record: SandboxRecord) -> bool:
        return record.mode is NetworkMode.HOST or self.pins.holds(record.token)

    def sandbox(self, record: SandboxRecord) -> Sandbox:
        assert record.sandbox_id is not None
        return Sandbox(
            id=record.sandbox_id,
            mode=record.mode,
            netns_path="" if record.mode is NetworkMode.HOST else str(self.pins.of(record.token)),
            endpoints=tuple(self.endpoint(endpoint) for endpoint in record.endpoints),
            resolution=record.resolution,
        )

    def endpoint(self, record: EndpointRecord) -> Endpoint:
        network = self._networks.find(record.network_id)
        ipv4, ipv6 = (network.ipv4, network.ipv6) if network is not None else (None, None)
        overlay = network.overlay if network is not None else None
        return Endpoint(
            network_id=record.network_id,
            network_name=network.name if network is not None else "",
            network_driver=network.driver if network is not None else Driver.BRIDGE,
            interface=record.interface,
            mac_address=record.mac_address,
            ipv4_address=record.ipv4_address,
            ipv4_prefix_length=ipv4.subnet.prefixlen if ipv4 is not None else 0,
            ipv4_gateway=str(ipv4.gateway) if ipv4 is not None and ipv4.on_host else "",
            ipv4_span=overlay.ipv4 if overlay is not None else None,
            ipv6_address=record.ipv6_address,
            ipv6_prefix_length=ipv6.subnet.prefixlen if ipv6 is not None else 0,
            ipv6_gateway=str(ipv6.gateway) if ipv6 is not None and ipv6.on_host else "",
            ipv6_span=overlay.ipv6 if overlay is not None else None,
        )

    async def _run(self, record: SandboxRecord, work: Callable[[], None]) -> None:
        try:
            await to_the_end(in_own_thread(work))
        except OSError as error:
            raise self._said(error, record) from error

    def _said(self, error: OSError, record: SandboxRecord) -> SlipwayError:
        message = f"sandbox '{record.sandbox_id}': {error.strerror or error}"
        if error.errno in _EXHAUSTED:
            return ResourceExhausted(f"{message}; a limit of the kernel is reached, remove containers or raise it")
        if error.errno in {errno.EPERM, errno.EACCES}:
            return FailedPrecondition(
                f"{message}; the executor needs CAP_NET_ADMIN and CAP_SYS_ADMIN", reason="BRIDGE_UNAVAILABLE"
            )
        if error.errno == errno.EOPNOTSUPP:
            return FailedPrecondition(
                f"{message}; the kernel needs CONFIG_VETH, CONFIG_BRIDGE and, for macvlan networks, CONFIG_MACVLAN",
                reason="BRIDGE_UNAVAILABLE",
            )
        for endpoint in record.endpoints:
            if gone := self._networks.gone(endpoint.network_id):
                return FailedPrecondition(f"{message}; {gone}", reason="BRIDGE_UNAVAILABLE")
        return Internal(message)

    def _attachment(self, record: EndpointRecord) -> wiring.Attachment:
        """Raises FailedPrecondition when its network cannot be had."""
        self._networks.get(record.network_id)
        return self._networks.attachment(self.endpoint(record), name=self._prefix + record.token)

    def _gateways(self, record: SandboxRecord) -> wiring.Gateways:
        found = {endpoint.network_id: endpoint for endpoint in record.endpoints}
        order = gateway_order(
            (endpoint.gateway_priority, network)
            for endpoint in record.endpoints
            if (network := self._networks.find(endpoint.network_id)) is not None
        )
        ipv4 = next((found[network.id] for network in order if network.ipv4 is not None), None)
        ipv6 = next((found[network.id] for network in order if network.ipv6 is not None), None)
        return wiring.Gateways(
            ipv4=self.endpoint(ipv4) if ipv4 is not None else None,
            ipv6=self.endpoint(ipv6) if ipv6 is not None else None,
        )

    def _unpin(self, tokens: set[str]) -> None:
        for token in tokens:
            self.pins.unpin(token)


def _delete_interfaces(names: set[str]) -> None:
    with rtnetlink.Channel() as kernel:
        for name in names:
            # Gone meanwhile: its namespace was being collected.
            kernel.send([rtnetlink.delete_link(name)], tolerate=frozenset({errno.ENODEV}))
