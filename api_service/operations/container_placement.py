"""Which node a container goes to: what the request demands, and the nodes as they stand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from api_service.nodes.registry import Node
from api_service.operations.container_image import ImageWish, image_holders
from api_service.operations.engine import Engine
from api_service.operations.network_list import find_network
from api_service.operations.node_choice import choose_node
from api_service.operations.platform import parse_pull_platform
from api_service.placement.constraints import parse_constraint
from api_service.placement.place import Demand, booked_ports, lack_of_room
from api_service.records.config import HostConfig, NetworkingConfig, Placement
from api_service.records.container import ContainerRecord
from api_service.records.mount import MountType
from api_service.records.node import Availability
from api_service.records.node_repository import wanted
from api_service.records.node_usage import Booking
from api_service.store.store import Delete, Put
from api_service.validation.binds import parse_bind
from api_service.validation.namespace_modes import joined_container
from api_service.validation.network_mode import PREDEFINED, has_networks, joined_network, normalise_network
from api_service.validation.port_bindings import expand_binding, normalise_port_bindings
from api_service.validation.ports import parse_port
from api_service.validation.volumes import parse_volumes_from
from common.errors import FailedPrecondition, InvalidArgument, NotFound

_Pin = tuple[str, str]
"""The one node where a container can be, and what is there: `volume 'data' is`."""


def sole_node(engine: Engine, host: HostConfig) -> Node | None:
    """The node, when there is but one and the request does not care."""
    node = engine.nodes.sole()
    free = node is not None and node.record.availability is Availability.ACTIVE and not node.record.removing
    return node if free and host.placement == Placement() else None


async def place_container(
    engine: Engine, wish: ImageWish, host: HostConfig, networking: NetworkingConfig, *, name: str
) -> tuple[Node, Demand]:
    """Of a request that breaks no rule. Raises FailedPrecondition and ResourceExhausted (`NO_NODE_FITS`),
    FailedPrecondition (`NODES_APART`) for one that needs what is on different nodes."""
    demand = await _demand(engine, wish, host, networking)
    return await choose_node(engine, demand, subject=f"container {name!r}" if name else "the container"), demand


class NodeTakenError(Exception):
    """The node cannot take the container any more: place it again."""


@contextlib.asynccontextmanager
async def booked(engine: Engine, record: ContainerRecord) -> AsyncIterator[Sequence[Put | Delete]]:
    """What has to be in the commit inside besides the container's record: it fails when somebody else books or releases
    in between, or begins to remove the node. Raises NodeTakenError."""
    if not record.booked:
        yield [wanted(record.node)]
        return
    async with engine.usages.turn(record.node):
        node, before = engine.nodes.get(record.node), await engine.usages.get(record.node)
        if lack_of_room(record.booked, node.record, before.record) is not None:
            raise NodeTakenError
        yield [wanted(record.node), engine.usages.put(record.node, before, before.record.plus(record.booked))]


def booking_of(host: HostConfig, *, ports: bool) -> Booking:
    """What a container books of its node. `ports`: those of the host, too, which matters among several nodes."""
    asked = host.placement
    found = _fixed_ports(host) if ports else ()
    return Booking(memory=asked.reserve_memory, nano_cpus=asked.reserve_nano_cpus, ports=booked_ports(found))


async def _demand(engine: Engine, wish: ImageWish, host: HostConfig, networking: NetworkingConfig) -> Demand:
    platform = parse_pull_platform(wish.platform)
    several = engine.nodes.sole() is None
    pins = [pin async for pin in _pins(engine, host, networking)] if several else []
    return Demand(
        booking=booking_of(host, ports=several and has_networks(normalise_network(host.network_mode))),
        constraints=tuple(map(parse_constraint, host.placement.constraints)),
        os=platform.os,
        architecture=platform.architecture,
        runtime=host.runtime,
        holders=await image_holders(engine, wish) if several else None,
        only=_one(pins),
        pack=host.placement.pack,
    )


def _one(pins: Iterable[_Pin]) -> _Pin | None:
    """Raises FailedPrecondition."""
    found = dict(pins)
    if len(found) > 1:
        apart = " and ".join(f"{what} on node {node!r}" for node, what in sorted(found.items()))
        raise FailedPrecondition(
            f"no node fits: {apart}; give the container what is on one node", resource_type="node", reason="NODES_APART"
        )
    return next(iter(found.items()), None)


async def _pins(engine: Engine, host: HostConfig, networking: NetworkingConfig) -> AsyncIterator[_Pin]:
    """What cannot be found is told later, with its field."""
    joined = [joined_container(host.ipc_mode), joined_container(host.pid_mode), joined_network(host.network_mode)]
    joined += [parse_volumes_from(entry)[0] for entry in host.volumes_from]
    joined += [dependency.container for dependency in host.depends_on]
    for reference in filter(None, joined):
        with contextlib.suppress(NotFound, InvalidArgument):
            record = await engine.containers.find(reference)
            yield record.node, f"container {record.name!r} is"
    for name in _volumes(host):
        with contextlib.suppress(NotFound):
            yield (await engine.volumes.find(name)).node, f"volume {name!r} is"
    mode = normalise_network(host.network_mode)
    if has_networks(mode):
        for reference in dict.fromkeys((mode, *networking.endpoints)):
            with contextlib.suppress(NotFound, InvalidArgument):
                network = await find_network(engine, reference)
                if network.id not in PREDEFINED and network.is_local:
                    yield network.node, f"network {network.name!r} is"


def _volumes(host: HostConfig) -> Iterator[str]:
    for text in host.binds:
        bind = parse_bind(text)
        if bind.is_volume and bind.source:
            yield bind.source
    for mount in host.mounts:
        if mount.type == MountType.VOLUME and mount.source:
            yield mount.source


def _fixed_ports(host: HostConfig) -> Iterator[tuple[int, str, str]]:
    for port, bindings in normalise_port_bindings(host.port_bindings).items():
        for binding in bindings:
            for one in expand_binding(parse_port(port), binding):
                if one.host_first and one.host_first == one.host_last:
                    yield one.host_first, one.protocol, one.host_ip
