"""Networks as they are shown: the ones that are always there, and those that were made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api_service.nodes.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.label_filter import has_labels
from api_service.records.container import ContainerRecord
from api_service.records.network import BRIDGE_DRIVER, DEFAULT_NETWORK, NetworkRecord
from api_service.validation.network_mode import HOST, NONE, PREDEFINED
from common.errors import DeadlineExceeded, Unavailable

_DRIVERS = {DEFAULT_NETWORK: BRIDGE_DRIVER, HOST: "host", NONE: "null"}


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


async def find_network(engine: Engine, reference: str, *, deadline: Deadline) -> NetworkRecord:
    """One that is always there by its name, any other by id, name or unique id prefix. Raises NotFound."""
    if reference in PREDEFINED:
        return await _predefined(engine, reference, deadline)
    return await engine.networks.find(reference)


async def inspect_network(engine: Engine, reference: str, *, deadline: Deadline) -> ShownNetwork:
    """Raises NotFound."""
    network = await find_network(engine, reference, deadline=deadline)
    containers = [
        record
        for record in await engine.containers.all()
        if any(endpoint.network_id == network.id for endpoint in record.network.endpoints)
    ]
    return ShownNetwork(network=network, containers=sorted(containers, key=lambda record: record.name))


async def list_networks(engine: Engine, wanted: NetworkFilter, *, deadline: Deadline) -> list[NetworkRecord]:
    """By name."""
    known = [*[await _predefined(engine, name, deadline) for name in PREDEFINED], *await engine.networks.all()]
    shown = [network for network in known if _matches(network, wanted)]
    if wanted.dangling is not None:
        used = networks_of(await engine.containers.all())
        shown = [one for one in shown if (one.id not in used and one.id not in PREDEFINED) == wanted.dangling]
    return sorted(shown, key=lambda network: network.name)


def networks_of(containers: Iterable[ContainerRecord]) -> set[str]:
    """Ids of the networks that they are attached to, running or not."""
    return {one.network_id for record in containers for one in record.networking_config.endpoints.values()}


def _matches(network: NetworkRecord, wanted: NetworkFilter) -> bool:
    return (
        (not wanted.ids or any(network.id.startswith(prefix) for prefix in wanted.ids))
        and (not wanted.names or any(part in network.name for part in wanted.names))
        and (not wanted.drivers or network.driver in wanted.drivers)
        and has_labels(network.labels, wanted.labels)
    )


async def _predefined(engine: Engine, name: str, deadline: Deadline) -> NetworkRecord:
    """The default one with its addresses, if the node answers."""
    node = engine.nodes.place()
    network = NetworkRecord(id=name, name=name, created_at=0, node=node.name, driver=_DRIVERS[name])
    if name != DEFAULT_NETWORK:
        return network
    with contextlib.suppress(Unavailable, DeadlineExceeded):
        for stored in await node.executor.list_networks(deadline=deadline):
            if stored.id == name:
                return NetworkRecord(
                    id=name,
                    name=name,
                    created_at=0,
                    node=node.name,
                    ipv4=stored.ipv4,
                    ipv6=stored.ipv6,
                    bridge=stored.bridge,
                    mtu=stored.mtu,
                )
    return network
