"""The node's networks: the default one and those that are asked for, with their addresses and rules.

A network is on record before its driver has made anything, and until after that is gone: whatever a crash leaves is
made good by the next set-up, which makes everything that is on record, or by the removal that is asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import structlog

from common.errors import FailedPrecondition
from common.sqlite import Database
from executor_service.network import firewall, forwarding, host_bridge, port_leases, records
from executor_service.network.bridge_driver import BridgeDriver
from executor_service.network.config import BridgeConfig
from executor_service.network.driver import HostLink, NetworkDriver
from executor_service.network.macvlan_driver import MacvlanDriver
from executor_service.network.network import DEFAULT_NETWORK, Driver, Network, NetworkSpec, Underlay
from executor_service.network.network_conflicts import check_apart
from executor_service.network.network_resolve import resolve_network
from executor_service.network.network_store import NetworkStore
from executor_service.network.overlay_driver import OverlayDriver
from executor_service.network.port_leases import Lease
from executor_service.network.refusals import no_such_network, refused
from executor_service.network.sandbox import Endpoint
from executor_service.network.wiring import Attachment
from executor_service.threads import to_the_end

_log = structlog.get_logger(__name__)


class Networks:
    """NetworkStore over this host's kernel. `set_up` comes first. `database` must have `records.SCHEMA` and
    `port_leases.SCHEMA`."""

    def __init__(self, config: BridgeConfig, database: Database) -> None:
        self._config = config
        self._database = database
        self._networks: dict[str, Network] = {}
        self._links: dict[str, HostLink] = {}
        self._complete: set[str] = set()  # whose rules and interfaces were all made; somebody may have deleted some
        self._overlays = OverlayDriver(config.run_directory)
        self._drivers: Mapping[Driver, NetworkDriver] = {
            Driver.BRIDGE: BridgeDriver(config.run_directory),
            Driver.MACVLAN: MacvlanDriver(),
            Driver.OVERLAY: self._overlays,
        }
        self._changing = asyncio.Lock()

    async def set_up(self) -> None:
        """Make what is on record. Raises FailedPrecondition when the default bridge, forwarding or nftables cannot be
        had; another network that cannot is logged, and refused to containers."""
        stored = await self._database.read(records.networks)
        ports = await self._database.read(port_leases.active)
        default = self._config.default_network
        self._links[default.id] = await to_the_end(asyncio.to_thread(self._set_up, default, stored, ports))
        self._networks = {network.id: network for network in (default, *stored)}
        for network in stored:
            try:
                self._links[network.id] = await to_the_end(asyncio.to_thread(self._driver(network).ensure, network))
                self._complete.add(network.id)
            except (FailedPrecondition, OSError) as error:
                _log.error("network cannot be set up", network=network.name, error=str(error))
        _log.info("networks ready", networks=len(self._networks), mtu=self._links[default.id].mtu)

    async def create(self, spec: NetworkSpec) -> Network:
        async with self._changing:
            existing = self._networks.get(spec.id)
            if existing is not None and not existing.fits(spec):
                why = f"network '{spec.name}' is there with other settings; remove it first"
                raise refused(spec.id, why, reason="NETWORK_DIFFERS")
            if existing is not None and spec.underlay is not None:
                return await to_the_end(self._converge_underlay(existing, spec.underlay))
            network = existing or await self._record(spec)
            if network.id not in self._links:
                await to_the_end(self._realise(network, new=existing is None))
            return network

    async def set_underlay(self, network_id: str, underlay: Underlay) -> Network:
        async with self._changing:
            network = self._networks.get(network_id)
            if network is None or network.underlay is None:
                raise no_such_network(network_id, kind="overlay network")
            return await to_the_end(self._converge_underlay(network, underlay))

    async def remove(self, network_id: str) -> None:
        async with self._changing:
            network = self._networks.get(network_id)
            if network is None:
                return
            if network_id == DEFAULT_NETWORK:
                raise refused(network_id, "the default network belongs to the executor", reason="NETWORK_PREDEFINED")
            users = await self._database.read(partial(records.users, network_id=network_id))
            if users:
                more = f" and {len(users) - 1} more" if len(users) > 1 else ""
                what = f"is in use by the sandbox of container '{users[0]}'{more}"
                why = f"network '{network.name}' {what}; disconnect or remove them first"
                raise refused(network_id, why, reason="NETWORK_IN_USE")
            await to_the_end(self._remove(network))

    async def restore_rules(self) -> None:
        """Put the table back, published ports included, if somebody deleted it. Raises FailedPrecondition."""
        async with self._changing:
            if await asyncio.to_thread(firewall.table_stands, self._config.table):
                return
            ports = await self._database.read(port_leases.active)
            networks = tuple(self._networks.values())
            await to_the_end(asyncio.to_thread(self._install_table, networks, ports))
            _log.warning("nftables table was deleted by somebody and is put back", table=self._config.table)

    async def restore_bridges(self) -> None:
        """Make the bridges again that somebody deleted, and those that could not be had before: what stood in their way
        may be what is gone. Raises FailedPrecondition, OSError when one is not to be had any more, after all others
        were made."""
        failed: list[FailedPrecondition | OSError] = []
        async with self._changing:
            for network in tuple(self._networks.values()):
                link, driver = self._links.get(network.id), self._driver(network)
                if not network.through_host or (link is not None and driver.stands(network, link)):
                    continue
                try:
                    self._links[network.id] = await to_the_end(asyncio.to_thread(driver.ensure, network))
                except (FailedPrecondition, OSError) as error:
                    self._complete.discard(network.id)
                    if link is not None:
                        failed.append(error)
                    continue
                _log.warning("bridge was not there and is made again", bridge=network.bridge)
        if failed:
            raise failed[0]

    def bridge(self, network_id: str) -> HostLink | None:
        """None for a network that is none, or that could not be set up."""
        network = self._networks.get(network_id)
        bridged = network is not None and network.through_host
        return self._links.get(network_id) if bridged else None

    def has_bridge(self, name: str) -> bool:
        """Whether an interface of the host is a network's bridge, or its way to other nodes."""
        return any(one.through_host and name in {one.bridge, one.tunnel} for one in self._networks.values())

    def list(self) -> Sequence[Network]:
        return tuple(self._networks.values())

    def find(self, network_id: str) -> Network | None:
        return self._networks.get(network_id)

    def get(self, network_id: str) -> tuple[Network, HostLink]:
        """The network with what it stands on. Raises FailedPrecondition."""
        network, link = self._networks.get(network_id), self._links.get(network_id)
        if network is None:
            raise no_such_network(network_id)
        if link is None:
            link = self._driver(network).found(network)
        if link is None:
            why = (
                f"network '{network.name}' could not be set up; the executor's log says why, at its last start: mend "
                "that, and restart the executor"
            )
            raise refused(network_id, why, reason="BRIDGE_UNAVAILABLE")
        return network, link

    def through_host(self, network_id: str) -> bool:
        """See Network; that of one which is unknown does."""
        network = self._networks.get(network_id)
        return network is None or network.through_host

    def attachment(self, endpoint: Endpoint, *, name: str) -> Attachment:
        """The endpoint's interface; of a network that cannot be had, one that can only be deleted."""
        network = self._networks[endpoint.network_id]
        link = self._links.get(network.id)
        return self._driver(network).attachment(network, link, name=name, endpoint=endpoint)

    def gone(self, network_id: str) -> str:
        """What is to be said when what the network stood on is there no more; empty while it is."""
        network, link = self._networks.get(network_id), self._links.get(network_id)
        if network is None or link is None or self._driver(network).stands(network, link):
            return ""
        return self._driver(network).gone(network)

    def _driver(self, network: Network) -> NetworkDriver:
        return self._drivers[network.driver]

    async def teardown(self) -> None:
        """Remove every network, the default one and the table included. Idempotent."""
        stored = await self._database.read(records.networks)
        for network in stored:
            await to_the_end(self._delete(network))
        await to_the_end(asyncio.to_thread(self._take_down))
        self._networks, self._links = {}, {}

    def _install_table(self, networks: Iterable[Network], ports: Iterable[Lease]) -> None:
        firewall.install_table(self._config.table, networks, ports, forwarder=self._config.loopback_forwarder)

    def _set_up(self, default: Network, stored: Sequence[Network], ports: Sequence[Lease]) -> HostLink:
        try:
            with ExitStack() as undo:
                forwarding.enable_forwarding()
                bridge = host_bridge.ensure_bridge(default, self._config.run_directory)
                if bridge.created:
                    undo.callback(host_bridge.delete_bridge, default, self._config.run_directory)
                self._install_table((default, *stored), ports)
                forwarding.route_localnet(default.bridge)
                undo.pop_all()
                return bridge
        except OSError as error:
            raise FailedPrecondition(
                f"bridge '{default.bridge}' cannot be set up: {error}; the executor needs root's CAP_NET_ADMIN "
                "and CAP_SYS_ADMIN",
                reason="BRIDGE_UNAVAILABLE",
            ) from error

    def _take_down(self) -> None:
        firewall.remove_table(self._config.table)
        host_bridge.delete_bridge(self._config.default_network, self._config.run_directory)

    async def _record(self, spec: NetworkSpec) -> Network:
        network = await asyncio.to_thread(resolve_network, spec, self._config, tuple(self._networks.values()))
        check_apart(network, self._networks.values())
        await to_the_end(self._database.write(partial(records.insert_network, network=network)))
        return network

    async def _realise(self, network: Network, *, new: bool) -> None:
        """A new one that cannot be had goes again; one that was there before stays, for containers are on it."""
        self._networks[network.id] = network
        try:
            link = await asyncio.to_thread(self._driver(network).ensure, network)
            await asyncio.to_thread(firewall.add_network, self._config.table, network)
        except BaseException as error:
            if new:
                await self._remove(network)
            if not isinstance(error, OSError):
                raise
            raise refused(network.id, f"network '{network.name}': {error}", reason="BRIDGE_UNAVAILABLE") from error
        self._links[network.id] = link
        self._complete.add(network.id)

    async def _converge_underlay(self, network: Network, underlay: Underlay) -> Network:
        """On record first; then the rules, so that nothing is heard of a peer that is no more; then the ways. Where all
        is complete only what has changed is touched; who asks for what there is already has all of it looked at."""
        assert network.underlay is not None
        changed = replace(network, underlay=max(underlay, network.underlay, key=lambda one: one.version))
        link = self._links.get(network.id)
        complete = changed != network and network.id in self._complete
        if changed != network:
            await self._database.write(partial(records.update_network, network=changed))
            self._networks[network.id] = changed
        self._complete.discard(network.id)
        rules = partial(firewall.change_network, self._config.table, network, changed, whole=not complete)
        if complete and link is not None:
            ways = partial(self._overlays.change, network, changed, link)
        else:
            ways = partial(self._driver(changed).ensure, changed)
        try:
            await asyncio.to_thread(rules)
            self._links[network.id] = await asyncio.to_thread(ways)
        except OSError as error:
            why = f"network '{network.name}': {error}; repeat the request"
            raise refused(network.id, why, reason="UNDERLAY_UNAVAILABLE") from error
        self._complete.add(network.id)
        return changed

    async def _remove(self, network: Network) -> None:
        self._links.pop(network.id, None)
        self._complete.discard(network.id)
        await self._delete(network)
        self._networks.pop(network.id, None)

    async def _delete(self, network: Network) -> None:
        await asyncio.to_thread(self._driver(network).delete, network)
        if self._networks:
            await asyncio.to_thread(firewall.remove_network, self._config.table, network)
        await self._database.write(partial(records.delete_network, network_id=network.id))


_: type[NetworkStore] = Networks
