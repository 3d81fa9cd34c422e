"""Hundreds of random operations at once on networks and containers: whatever wins each race, the node has exactly what
the records say, object by object, and nothing when all is removed."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb

from tests.fixtures import network_state
from tests.fixtures.api import refusal
from tests.fixtures.network_state import NodeState, Objects
from tests.fixtures.slipway import Slipway, installed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

OPERATIONS, WIDTH = 500, 8
CONTAINERS = [f"box{number}" for number in range(8)]
NETWORKS = [f"n{number}" for number in range(4)]
POOL = 2 * 4  # sandboxes on the default network, and bare ones
SOON = 60.0  # seconds within which what is done behind an answer is done
DEADLINE = 60.0

Operation = Callable[["World", random.Random], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class World:
    engine: Slipway
    refused: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with installed(tmp_path_factory.mktemp("services")) as engine:
        yield World(engine)


async def create(world: World, dice: random.Random) -> None:
    """On one network or two, with ports that were asked for, that are to be chosen, or none."""
    first, *others = dice.sample([*NETWORKS, "bridge"], dice.choice((1, 1, 2)))
    places = dice.choice(([], [], [("", "")], [("", str(dice.randrange(8000, 8004)))], [("127.0.0.1", "")]))
    bindings = [container_pb2.PortBinding(host_ip=address, host_port=port) for address, port in places]
    request = pb.CreateContainerRequest(
        name=dice.choice(CONTAINERS),
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep", "600"], stop_signal="SIGKILL"),
        host_config=container_pb2.HostConfig(
            network_mode=first,
            port_bindings={"80/tcp": container_pb2.PortBindings(bindings=bindings)} if bindings else {},
        ),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={name: container_pb2.EndpointSettings() for name in others}
        ),
    )
    await world.engine.containers.CreateContainer(request, timeout=DEADLINE)


async def start(world: World, dice: random.Random) -> None:
    request = pb.StartContainerRequest(container=dice.choice(CONTAINERS))
    await world.engine.containers.StartContainer(request, timeout=DEADLINE)


async def stop(world: World, dice: random.Random) -> None:
    request = pb.StopContainerRequest(container=dice.choice(CONTAINERS))
    await world.engine.containers.StopContainer(request, timeout=DEADLINE)


async def remove(world: World, dice: random.Random) -> None:
    request = pb.RemoveContainerRequest(container=dice.choice(CONTAINERS), force=dice.random() < 0.5)
    await world.engine.containers.RemoveContainer(request, timeout=DEADLINE)


async def connect(world: World, dice: random.Random) -> None:
    request = network_pb.ConnectContainerRequest(
        network=dice.choice([*NETWORKS, "bridge"]), container=dice.choice(CONTAINERS)
    )
    await world.engine.networks.ConnectContainer(request, timeout=DEADLINE)


async def disconnect(world: World, dice: random.Random) -> None:
    request = network_pb.DisconnectContainerRequest(
        network=dice.choice([*NETWORKS, "bridge"]), container=dice.choice(CONTAINERS)
    )
    await world.engine.networks.DisconnectContainer(request, timeout=DEADLINE)


async def publish(world: World, dice: random.Random) -> None:
    """A port more, that was asked for or is to be chosen, another place for one, or one less."""
    port, number = dice.choice(("80", "81")), dice.choice(("", str(dice.randrange(8000, 8004))))
    bindings = {port: container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_port=number)])}
    less = dice.random() < 0.4
    request = pb.UpdateContainerRequest(
        container=dice.choice(CONTAINERS),
        port_bindings={} if less else bindings,
        unpublish=[port] if less else [],
    )
    await world.engine.containers.UpdateContainer(request, timeout=DEADLINE)


async def rename(world: World, dice: random.Random) -> None:
    one, other = dice.sample(CONTAINERS, 2)
    request = pb.RenameContainerRequest(container=one, new_name=other)
    await world.engine.containers.RenameContainer(request, timeout=DEADLINE)


async def create_network(world: World, dice: random.Random) -> None:
    request = network_pb.CreateNetworkRequest(
        name=dice.choice(NETWORKS),
        internal=dice.random() < 0.2,
        enable_ipv6=dice.random() < 0.8,
        bridge=network_pb.BridgeOptions(enable_icc=dice.random() < 0.8),
    )
    await world.engine.networks.CreateNetwork(request, timeout=DEADLINE)


async def remove_network(world: World, dice: random.Random) -> None:
    request = network_pb.RemoveNetworkRequest(network=dice.choice(NETWORKS))
    await world.engine.networks.RemoveNetwork(request, timeout=DEADLINE)


WEIGHTS: Mapping[Operation, int] = {
    create: 6,
    start: 8,
    stop: 4,
    remove: 3,
    connect: 8,
    disconnect: 7,
    publish: 8,
    rename: 1,
    create_network: 2,
    remove_network: 1,
}
# What a lost race may be answered with, by operation; anything else is a fault.
GONE, GOING = ("NOT_FOUND", "CONTAINER_NOT_FOUND"), ("FAILED_PRECONDITION", "CONTAINER_GOING")
NO_NETWORK = {("NOT_FOUND", "NETWORK_NOT_FOUND"), ("FAILED_PRECONDITION", "NETWORK_BEING_REMOVED")}
NAME_TAKEN = ("ALREADY_EXISTS", "CONTAINER_NAME_IN_USE")
RIGHT: Mapping[Operation, set[tuple[str, str]]] = {
    create: {NAME_TAKEN, *NO_NETWORK},
    start: {GONE, GOING, ("ALREADY_EXISTS", "PORT_ALLOCATED")},
    stop: {GONE, GOING},
    remove: {GONE, ("FAILED_PRECONDITION", "CONTAINER_RUNNING")},
    connect: {
        *(GONE, GOING, *NO_NETWORK, ("ALREADY_EXISTS", "ALREADY_CONNECTED")),
        *(("ALREADY_EXISTS", "PORT_ALLOCATED"), ("FAILED_PRECONDITION", "NO_ADDRESS")),
    },
    disconnect: {GONE, GOING, *NO_NETWORK, ("FAILED_PRECONDITION", "NOT_CONNECTED")},
    publish: {
        *(GONE, GOING, ("ALREADY_EXISTS", "PORT_ALLOCATED"), ("FAILED_PRECONDITION", "NO_ADDRESS")),
        ("INVALID_ARGUMENT", "INVALID_REQUEST"),  # the same port of the host twice
    },
    rename: {GONE, GOING, NAME_TAKEN},
    create_network: {("ALREADY_EXISTS", "NETWORK_NAME_IN_USE")},
    remove_network: {*NO_NETWORK, ("FAILED_PRECONDITION", "NETWORK_IN_USE")},
}


async def perform(world: World, operation: Operation, seed: int) -> None:
    name = operation.__name__
    try:
        await operation(world, random.Random(seed))
    except grpc.aio.AioRpcError as error:
        found = refusal(error)
        world.refused[f"{name} {found.code.name} {found.reason}"] += 1
        assert (found.code.name, found.reason) in RIGHT[operation], f"{name}: {found.message}"
    else:
        world.done[name] += 1


async def perform_all(world: World, operations: Sequence[Operation], dice: random.Random) -> None:
    waiting = iter([(operation, dice.random()) for operation in operations])

    async def work() -> None:
        for operation, seed in waiting:
            await perform(world, operation, int(seed * 2**32))

    async with asyncio.TaskGroup() as workers:
        for _ in range(WIDTH):
            workers.create_task(work())


async def as_recorded(world: World) -> Objects:
    """The objects that were found, all of them as they should be."""
    told = await network_state.records(world.engine)
    wanted = network_state.expected(told)
    found, wrong = NodeState(), ["nothing looked at"]
    try:
        async with asyncio.timeout(SOON):
            while wrong or found.prepared != POOL:
                if (seen := await network_state.looked_at(world.engine, told)) is not None:
                    found, wrong = seen, network_state.differences(wanted, seen.objects)
    except TimeoutError:
        pass
    assert (wrong, found.prepared) == ([], POOL)
    assert found.kept_ports <= {container.id for container in (*told.running, *told.ended)}
    assert await network_state.name_differences(told) == []
    return found.objects


async def everything_removed(world: World) -> None:
    engine = world.engine
    listed = await engine.containers.ListContainers(pb.ListContainersRequest(all=True), timeout=DEADLINE)
    for container in listed.containers:
        await engine.remove(container.id)
    await engine.networks.PruneNetworks(network_pb.PruneNetworksRequest(), timeout=DEADLINE)


async def test_whatever_wins_the_races_the_node_has_what_the_records_say(world: World) -> None:
    seed = int(os.environ.get("SLIPWAY_TEST_SEED", "1"))  # what wins the races is another matter each time
    print(f"SLIPWAY_TEST_SEED={seed}")
    dice = random.Random(seed)
    at_rest = await as_recorded(world)
    first = [create_network] * 2 * len(NETWORKS) + [create, start, connect] * 2 * len(CONTAINERS)
    rest = dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=OPERATIONS - len(first))
    operations = [*first, *rest]
    await perform_all(world, operations[: OPERATIONS // 2], dice)
    before = await as_recorded(world)
    await world.engine.executor.kill()
    await world.engine.executor.start()
    await world.engine.node_back()
    assert await as_recorded(world) == before
    await perform_all(world, operations[OPERATIONS // 2 :], dice)
    after = await as_recorded(world)
    print({kind: (len(before[kind]), len(after[kind])) for kind in after})
    print(f"done: {dict(world.done)}\nrefused: {dict(world.refused)}")
    assert world.done.total() > OPERATIONS / 10, "hardly anything was done"

    await everything_removed(world)
    assert await as_recorded(world) == at_rest
