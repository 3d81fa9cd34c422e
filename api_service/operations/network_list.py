"""Networks as they are shown: the ones that are always there, and those that were made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api_service.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.label_filter import has_labels
from api_service.records.container import ContainerRecord, Status
from api_service.records.network import BRIDGE_DRIVER, DEFAULT_NETWORK, MODE_DRIVERS, NetworkRecord
from api_service.validation.network_mode import PREDEFINED
from common.errors import DeadlineExceeded, Unavailable

_NODE_TIME = 1.0  # seconds
_ALIVE = frozenset({Status.RUNNING, Status.PAUSED})
_DRIVERS = {DEFAULT_NETWORK: BRIDGE_DRIVER, **MODE_DRIVERS}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFilter:
    """`ids` are prefixes, `names` parts of names, alternatives each; `labels` all hold. `dangling`: None for both."""

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    dangling: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownNetwork:
    """`containers`: the running ones on it."""

    network: NetworkRecord
    containers: Sequence[ContainerRecord] = ()


async def find_network(engine: Engine, reference: str) -> NetworkRecord:
    """One that is always there by its name, without its addresses; any other by id, name or unique id prefix. Raises
    NotFound."""
    if reference in PREDEFINED:
        return _predefined(engine, reference)
    return await engine.networks.find(reference)


async def inspect_network(engine: Engine, reference: str, *, deadline: Deadline) -> ShownNetwork:
    """Raises NotFound."""
    network = await find_network(engine, reference)
    if network.id == DEFAULT_NETWORK:
        network = await _with_addresses(engine, network, deadline)
    containers = [record for record in await engine.containers.all() if _is_on(record, network)]
    return ShownNetwork(network=network, containers=sorted(containers, key=lambda record: record.name))


async def list_networks(engine: Engine, wanted: NetworkFilter, *, deadline: Deadline) -> list[NetworkRecord]:
    """By name."""
    predefined = [_predefined(engine, name) for name in PREDEFINED]
    predefined[0] = await _with_addresses(engine, predefined[0], deadline)
    known = [*predefined, *await engine.networks.all()]
    shown = [network for network in known if _matches(network, wanted)]
    if wanted.dangling is not None:
        used = networks_of(await engine.containers.all())
        shown = [one for one in shown if (one.id not in used and one.id not in PREDEFINED) == wanted.dangling]
    return sorted(shown, key=lambda network: network.name)


def networks_of(containers: Iterable[ContainerRecord]) -> set[str]:
    """Ids of the networks that they are attached to, running or not."""
    return {one.network_id for record in containers for one in record.networking_config.endpoints.values()}


def _is_on(record: ContainerRecord, network: NetworkRecord) -> bool:
    if network.id in MODE_DRIVERS:
        return record.host_config.network_mode == network.id and record.status in _ALIVE
    return any(endpoint.network_id == network.id for endpoint in record.network.endpoints)


def _matches(network: NetworkRecord, wanted: NetworkFilter) -> bool:
    return (
        (not wanted.ids or any(network.id.startswith(prefix) for prefix in wanted.ids))
        and (not wanted.names or any(part in network.name for part in wanted.names))
        and (not wanted.drivers or network.driver in wanted.drivers)
        and has_labels(network.labels, wanted.labels)
    )


def _predefined(engine: Engine, name: str) -> NetworkRecord:
    """Each node has its own: among several they are nobody's."""
    sole = engine.nodes.sole()
    return NetworkRecord(
        id=name, name=name, created_at=0, node=sole.name if sole is not None else "", driver=_DRIVERS[name]
    )


async def _with_addresses(engine: Engine, network: NetworkRecord, deadline: Deadline) -> NetworkRecord:
    """The default one's are the node's, when there is one; a node that does not answer soon delays nobody."""
    if not network.node:
        return network
    executor = engine.nodes.get(network.node).executor
    with contextlib.suppress(Unavailable, DeadlineExceeded):
        for stored in await executor.networks.list(deadline=deadline.at_most(_NODE_TIME)):
            if stored.id == network.id:
                return dataclasses.replace(
                    network, ipv4=stored.ipv4, ipv6=stored.ipv6, bridge=stored.bridge, mtu=stored.mtu
                )
    return network
