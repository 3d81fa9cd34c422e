"""The executor killed between each two steps of start, connect, disconnect, publish, unpublish and removal: the next
one finds the node as the records say, object by object, and the call can be repeated."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb

from executor_service.config import instance_defaults
from tests.fixtures import network_state
from tests.fixtures.api import refusal
from tests.fixtures.executor_faults import (
    CONNECT_STEPS,
    DISCONNECT_STEPS,
    NETWORK_REMOVE_STEPS,
    NETWORK_START_STEPS,
    UPDATE_STEPS,
)
from tests.fixtures.fault_server import FaultServer
from tests.fixtures.slipway import Slipway, installed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

WHEN = ("before", "after")
SOON = 60.0  # seconds within which what is done behind an answer is done
BOX = "box"
FRONT, GATE = "front", "a-gate"  # the gateway is, of equal ones, the first by name


@dataclass(frozen=True, slots=True)
class World:
    engine: Slipway
    faults: FaultServer
    at_rest: network_state.Objects


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    # Nothing is prepared ahead: what is done at a step is done for the call.
    socket = tmp_path_factory.mktemp("f") / "s"
    async with (
        FaultServer.open(socket) as faults,
        installed(tmp_path_factory.mktemp("services"), executor=["--sandbox-pool", "0"], faults=faults) as engine,
    ):
        for name in (GATE, FRONT):
            await engine.networks.CreateNetwork(network_pb.CreateNetworkRequest(name=name), timeout=30)
        yield World(engine, faults, await as_recorded(engine))
        for name in (GATE, FRONT):
            await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network=name), timeout=30)


@pytest_asyncio.fixture(loop_scope="module")
async def world(running: World) -> AsyncIterator[World]:
    """Without a container before and after."""
    yield running
    running.faults.disarm()
    engine = running.engine
    if engine.executor.process is None or engine.executor.process.returncode is not None:
        await engine.executor.ended()
        await engine.executor.start()
        await engine.node_back()
    with contextlib.suppress(grpc.aio.AioRpcError):  # it is removed
        await engine.remove(BOX)


async def as_recorded(engine: Slipway) -> network_state.Objects:
    """What is there, all of it as the records say, addresses that rest included."""
    found, wrong = network_state.NodeState(), ["nothing looked at"]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SOON):
            while wrong:
                told = await network_state.records(engine)
                if (seen := await network_state.looked_at(engine, told)) is None:
                    continue
                found, wrong = seen, network_state.differences(network_state.expected(told), seen.objects)
                wrong += kept_for_nobody(engine, {one.id for one in (*told.running, *told.ended)})
                wrong += await network_state.name_differences(told)
    assert wrong == []
    return found.objects


def kept_for_nobody(engine: Slipway, known: set[str]) -> list[str]:
    """Addresses that are leased and freed at once, or wait for a container that is removed."""
    path = Path(str(instance_defaults(engine.instance)["root_dir"])) / "state.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        both = database.execute(
            "SELECT network, hex(address) FROM network_freed_addresses JOIN network_leases USING (network, address)"
        )
        wrong = [f"{address} of {network} is leased and rests" for network, address in both]
        owners = database.execute("SELECT DISTINCT container FROM network_freed_addresses WHERE container <> ''")
        return wrong + [f"an address waits for {owner}" for (owner,) in owners if owner not in known]


async def create(engine: Slipway, *networks: str) -> None:
    """With two ports, one of them of the node's choice."""
    first, *others = networks
    bindings = {"80/tcp": container_pb2.PortBinding(host_port="8080"), "81/udp": container_pb2.PortBinding()}
    request = pb.CreateContainerRequest(
        name=BOX,
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep", "600"], stop_signal="SIGKILL"),
        host_config=container_pb2.HostConfig(
            network_mode=first,
            port_bindings={port: container_pb2.PortBindings(bindings=[one]) for port, one in bindings.items()},
        ),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={name: container_pb2.EndpointSettings() for name in others}
        ),
    )
    await engine.containers.CreateContainer(request, timeout=30)


async def start(engine: Slipway) -> None:
    await engine.start(BOX)


async def connect(engine: Slipway) -> None:
    """To what is its gateway then, so that its ports move."""
    request = network_pb.ConnectContainerRequest(network=GATE, container=BOX)
    await engine.networks.ConnectContainer(request, timeout=30)


async def disconnect(engine: Slipway) -> None:
    request = network_pb.DisconnectContainerRequest(network=GATE, container=BOX)
    await engine.networks.DisconnectContainer(request, timeout=30)


async def publish(engine: Slipway) -> None:
    """One more, and another one elsewhere."""
    bindings = {"80/tcp": container_pb2.PortBinding(host_port="8081"), "82/tcp": container_pb2.PortBinding()}
    ports = {port: container_pb2.PortBindings(bindings=[one]) for port, one in bindings.items()}
    await engine.containers.UpdateContainer(pb.UpdateContainerRequest(container=BOX, port_bindings=ports), timeout=30)


async def unpublish(engine: Slipway) -> None:
    await engine.containers.UpdateContainer(pb.UpdateContainerRequest(container=BOX, unpublish=["81/udp"]), timeout=30)


async def remove(engine: Slipway) -> None:
    await engine.remove(BOX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """`on`: the networks of the container before. `after`: those that it is on, running, when it was done; None: it is
    gone. `done`: what the repeated call may be answered with: the outcome of the first one."""

    call: Callable[[Slipway], Awaitable[None]]
    steps: Sequence[str]
    on: tuple[str, ...]
    after: frozenset[str] | None
    done: tuple[str, str] = ("", "")
    runs: bool = True
    ports: int = 4  # of both families, when it was done


VERBS = {
    "start": Verb(
        call=start,
        steps=NETWORK_START_STEPS,
        on=(FRONT, GATE),
        after=frozenset({FRONT, GATE}),
        runs=False,
    ),
    "connect": Verb(
        call=connect,
        steps=CONNECT_STEPS,
        on=(FRONT,),
        after=frozenset({FRONT, GATE}),
        done=("ALREADY_EXISTS", "ALREADY_CONNECTED"),
    ),
    "disconnect": Verb(
        call=disconnect,
        steps=DISCONNECT_STEPS,
        on=(FRONT, GATE),
        after=frozenset({FRONT}),
        done=("FAILED_PRECONDITION", "NOT_CONNECTED"),
    ),
    "publish": Verb(call=publish, steps=UPDATE_STEPS, on=(FRONT,), after=frozenset({FRONT}), ports=6),
    "unpublish": Verb(call=unpublish, steps=UPDATE_STEPS, on=(FRONT,), after=frozenset({FRONT}), ports=2),
    "remove": Verb(
        call=remove,
        steps=NETWORK_REMOVE_STEPS,
        on=(FRONT, GATE),
        after=None,
        done=("NOT_FOUND", "CONTAINER_NOT_FOUND"),
    ),
}
TABLE = [(name, f"{step}:{when}") for name, verb in VERBS.items() for step in verb.steps for when in WHEN]


@pytest.mark.parametrize(("name", "point"), TABLE)
async def test_an_executor_killed_at_any_step_leaves_what_the_records_say(world: World, name: str, point: str) -> None:
    engine, verb = world.engine, VERBS[name]
    await create(engine, *verb.on)
    if verb.runs:
        await engine.start(BOX)
    before = await as_recorded(engine)

    world.faults.arm(point, "kill")
    with contextlib.suppress(grpc.aio.AioRpcError):  # after the last step the API may know already
        await verb.call(engine)
    await world.faults.reached()
    await engine.executor.ended()
    await engine.executor.start()
    await engine.node_back()
    await as_recorded(engine)

    await repeated(world, verb)
    if verb.after is None:
        assert await as_recorded(engine) == world.at_rest
        return
    found = await engine.inspect(BOX)
    assert set(found.network_settings.networks) == verb.after
    assert found.state.running
    after = await as_recorded(engine)
    assert len(ports_of(after)) == verb.ports
    if verb.runs:
        assert before["namespaces"] == after["namespaces"]
    if verb.ports == 4 and verb.runs:
        assert ports_of(before) == ports_of(after), "the node's ports are the same, wherever they lead"


async def repeated(world: World, verb: Verb) -> None:
    try:
        await verb.call(world.engine)
    except grpc.aio.AioRpcError as error:
        answer = refusal(error)
        assert (answer.code.name, answer.reason) == verb.done, answer.message


def ports_of(objects: network_state.Objects) -> set[str]:
    """The node's on all its addresses, wherever they lead."""
    return {rule.partition(" : ")[0] for rule in objects["rules"] if rule.startswith(("ports4 ", "ports6 "))}
