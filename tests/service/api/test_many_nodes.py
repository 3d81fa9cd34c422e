"""One service, several nodes: where containers, images, volumes and networks go, and what one absent node delays."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import image_service_pb2 as image_pb2
from slipway.v1 import network_service_pb2 as network_pb2
from slipway.v1 import node_service_pb2 as node_pb2
from slipway.v1 import system_service_pb2 as system_pb2
from slipway.v1 import volume_service_pb2 as volume_pb2

from common.errors import ResourceExhausted
from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor, serving_nodes
from tests.fixtures.fake_executor.images import archive, image_config
from tests.fixtures.shared_store import SharedStore

READY, UNREACHABLE = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_UNREACHABLE
NODES = ("a", "b", "c")
GIB = 1024**3


@pytest.fixture
async def executors(tmp_path: Path) -> AsyncIterator[Mapping[str, FakeExecutor]]:
    async with serving_nodes(tmp_path, *NODES) as executors:
        yield executors


@pytest.fixture
async def api(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> AsyncIterator[Api]:
    async with running_api(tmp_path, executors["a"], configured=False) as api:
        for name, fake in executors.items():
            await api.add_node(name, fake.address, labels={"zone": "north" if name == "a" else "south"})
            await api.node_in(name, READY)
        await api.load()
        yield api


async def node_of(api: Api, container: str) -> str:
    return (await api.inspect(container)).node


async def cordon(api: Api, *nodes: str) -> None:
    for node in nodes:
        await api.nodes.UpdateNode(
            node_pb2.UpdateNodeRequest(node=node, availability=node_pb2.NODE_AVAILABILITY_CORDONED)
        )


def placed(**placement: Any) -> dict[str, Any]:
    return {"placement": container_pb2.Placement(**placement)}


async def test_containers_spread_and_run_where_they_are(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    for index in range(6):
        await api.run(name=f"web{index}")
    assert Counter([await node_of(api, f"web{index}") for index in range(6)]) == {"a": 2, "b": 2, "c": 2}
    for index in range(6):
        container = await api.inspect(f"web{index}")
        assert executors[container.node].containers[container.id].running
        await api.stop(f"web{index}")
        await api.remove(f"web{index}")
    assert all(not fake.containers for fake in executors.values())


async def test_constraints_and_availability(api: Api) -> None:
    await api.create(name="north", **placed(constraints=["node.labels.zone==north"]))
    await api.create(name="south", **placed(constraints=["node.labels.zone!=north", "node.name!=c"]))
    assert [await node_of(api, each) for each in ("north", "south")] == ["a", "b"]
    await cordon(api, "a")
    why = await refused(api.create(**placed(constraints=["node.labels.zone==north"])))
    assert (why.code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_NODE_FITS")
    assert why.message == ("the container: no node fits: 2 of 3 are not node.labels.zone==north, 1 is cordoned")
    wrong = await refused(api.create(**placed(constraints=["zone=north"])))
    assert list(wrong.violations) == ["host_config.placement.constraints[0]"]


async def test_reservations_are_never_given_twice(api: Api) -> None:
    made = await asyncio.gather(
        *(api.create(name=f"c{index}", **placed(reserve_memory=GIB)) for index in range(16)), return_exceptions=True
    )
    refusals = [each for each in made if isinstance(each, grpc.aio.AioRpcError)]
    assert (len(made) - len(refusals), {each.code() for each in refusals}) == (
        12,
        {grpc.StatusCode.RESOURCE_EXHAUSTED},
    )
    assert "3 of 3 lack memory (1024 MiB asked, 0 bytes, 0 bytes and 0 bytes free)" in (refusals[0].details() or "")
    for name in NODES:
        assert (await api.node(name)).usage.reserved.memory == 4 * GIB
    gone = next(each for each in made if isinstance(each, str))
    await api.remove(gone)
    assert sum([(await api.node(name)).usage.reserved.memory for name in NODES]) == 11 * GIB
    await api.create(**placed(reserve_memory=GIB))


async def test_two_replicas_do_not_overbook(shared: SharedStore, executors: Mapping[str, FakeExecutor]) -> None:
    replicas = [await shared.join(name, executors["a"], configured=False) for name in ("one", "two")]
    for name in ("a", "b"):
        await replicas[0].add_node(name, executors[name].address)
        for replica in replicas:
            await replica.node_in(name, READY)
            assert await replica.engine.nodes.until(name, present=True, patience=60)
    await replicas[0].load()
    made = await asyncio.gather(
        *(
            replicas[index % 2].create(name=f"c{index}", **placed(reserve_nano_cpus=1_000_000_000))
            for index in range(10)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(each, str) for each in made) == 4
    assert [(await replicas[0].node(name)).usage.reserved.nano_cpus for name in ("a", "b")] == [2_000_000_000] * 2


async def test_a_fixed_port_goes_where_it_is_free(api: Api) -> None:
    bindings = container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_port="8080")])
    ports: dict[str, Any] = {"port_bindings": {"80/tcp": bindings}}
    nodes = [await node_of(api, await api.create(**ports)) for _ in range(3)]
    assert sorted(nodes) == ["a", "b", "c"]
    why = await refused(api.create(**ports))
    assert (why.code, why.message) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "the container: no node fits: 3 of 3 have port 8080/tcp taken",
    )


async def test_volumes_networks_and_joined_containers_decide(api: Api) -> None:
    await api.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data", node="c"))
    await api.networks.CreateNetwork(network_pb2.CreateNetworkRequest(name="back", node="b"))
    await api.create(name="one", binds=["data:/data"])
    await api.create(name="two", network_mode="back")
    assert [await node_of(api, each) for each in ("one", "two")] == ["c", "b"]
    await api.create(name="joined", network_mode="container:two")
    await api.create(name="taking", volumes_from=["one"])
    await api.create(name="after", depends_on=[container_pb2.Dependency(container="one")])
    assert [await node_of(api, each) for each in ("joined", "taking", "after")] == ["b", "c", "c"]
    why = await refused(api.create(binds=["data:/data"], network_mode="back"))
    assert (why.code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NODES_APART")
    assert "network 'back' is on node 'b' and volume 'data' is on node 'c'" in why.message
    connect = network_pb2.ConnectContainerRequest(network="back", container="one")
    assert (await refused(api.networks.ConnectContainer(connect))).reason == "NETWORK_ELSEWHERE"


async def test_a_volume_is_where_it_was_asked_for(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    made = await api.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data", node="b"))
    assert made.volume.node == "b"
    assert list(executors["b"].volumes) == ["data"]
    again = await api.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data"))
    assert again.volume.node == "b"
    elsewhere = await refused(api.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data", node="c")))
    assert elsewhere.reason == "VOLUME_EXISTS"
    nowhere = await refused(api.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="x1", node="z")))
    assert nowhere.reason == "NODE_NOT_FOUND"


async def test_images_come_to_every_node_or_to_the_one_named(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    assert all(len(fake.images) == 1 for fake in executors.values())
    call = api.images.PullImage(image_pb2.PullImageRequest(reference="registry.example/app:1"))
    answers = [answer async for answer in call]
    assert [answer.WhichOneof("payload") for answer in answers].count("image") == 1
    assert answers[-1].image.image.repo_tags == ["registry.example/app:1"]
    assert all(len(fake.pulls) == 1 for fake in executors.values())
    other = archive(["other:1"], image_config(Cmd=["other"]))
    await api.images.LoadImage(image_pb2.LoadImageRequest(chunk=part, node="b") for part in (other[:9], other[9:]))
    assert [len(executors[name].images) for name in NODES] == [2, 3, 2]
    for _ in range(3):
        assert await node_of(api, await api.create(image="other:1")) == "b"


async def test_a_pull_that_fails_on_one_node_fails_and_the_others_keep_it(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    executors["b"].fault("PullImage", error=ResourceExhausted("disk full"))
    call = api.images.PullImage(image_pb2.PullImageRequest(reference="registry.example/app:1"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        assert [answer async for answer in call]
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await cordon(api, "a")
    await api.create(name="web", image="registry.example/app:1", **placed(constraints=["node.name!=b"]))
    assert await node_of(api, "web") == "c"


async def test_a_create_pulls_where_it_is_placed_and_the_same_image(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    call = api.images.PullImage(image_pb2.PullImageRequest(reference="registry.example/app:1", node="a"))
    [*_, last] = [answer async for answer in call]
    request = pb2.CreateContainerRequest(
        name="web",
        config=container_pb2.ContainerConfig(image="registry.example/app:1", cmd=["sleep"]),
        host_config=container_pb2.HostConfig(**placed(constraints=["node.name==b"])),
        pull_policy=pb2.PULL_POLICY_MISSING,
    )
    await api.containers.CreateContainer(request)
    web = await api.inspect("web")
    assert (web.node, web.image_id) == ("b", last.image.image.id)
    [pull] = executors["b"].pulls
    assert pull.reference == last.image.digest


async def test_an_absent_node_delays_nobody(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    await api.run(name="here", **placed(constraints=["node.name==a"]))
    await api.run(name="there", **placed(constraints=["node.name==b"]))
    await executors["b"].down()
    await api.node_in("b", UNREACHABLE)
    began = time.monotonic()
    assert sorted(await api.names()) == ["here", "there"]
    assert (await api.inspect("there")).state.running
    usage = await api.system.GetDiskUsage(system_pb2.GetDiskUsageRequest())
    assert (usage.images_size, len(usage.warnings)) == (6, 1)
    assert "node 'b'" in usage.warnings[0]
    info = await api.system.GetInfo(system_pb2.GetInfoRequest())
    assert [node.available for node in info.nodes] == [True, False, True]
    for index in range(4):
        await api.run(name=f"new{index}")
        assert await node_of(api, f"new{index}") != "b"
    stop = await refused(api.stop("there"))
    assert (stop.code, stop.reason) == (grpc.StatusCode.UNAVAILABLE, "NODE_UNAVAILABLE")
    assert time.monotonic() - began < 30, "each call that waits for it takes seconds"
    await executors["b"].up()
    await api.node_in("b", READY)
    await api.stop("there")


async def test_a_retried_create_is_the_same_container_though_nothing_fits_any_more(api: Api) -> None:
    request = pb2.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]), request_id="once"
    )
    first = await api.containers.CreateContainer(request)
    await cordon(api, *NODES)
    assert (await api.containers.CreateContainer(request)).id == first.id


async def test_a_node_that_is_being_forgotten_gets_nothing(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    await cordon(api, "b", "c")
    await executors["a"].down()
    await api.node_in("a", UNREACHABLE)
    why = await refused(api.create())
    assert "2 of 3 are cordoned, 1 is unreachable" in why.message
    await api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a", force=True))
    why = await refused(api.create())
    assert "2 of 2 are cordoned" in why.message


async def test_without_any_node_it_is_said(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> None:
    async with running_api(tmp_path, executors["a"], configured=False) as api:
        why = await refused(api.create())
        assert (why.reason, "add one with NodeService.AddNode" in why.message) == ("NO_NODE_FITS", True)


async def test_an_import_comes_to_every_node(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    header = image_pb2.ImportImageHeader(reference="root:1")
    requests = [image_pb2.ImportImageRequest(header=header), image_pb2.ImportImageRequest(chunk=b"tar")]
    await api.images.ImportImage(request for request in requests)
    assert [len(fake.images) for fake in executors.values()] == [2, 2, 2]
    # It is one image: a container of it can be made on each, and no node has one that the name does not mean.
    assert len({frozenset(fake.images) for fake in executors.values()}) == 1
    assert {await node_of(api, await api.create(image="root:1")) for _ in range(6)} == {"a", "b", "c"}


async def test_an_upload_that_one_node_refuses_is_told_and_kept_by_the_others(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    executors["b"].fault("LoadImage", error=ResourceExhausted("disk full"))
    other = archive(["other:1"], image_config(Cmd=["other"]))
    why = await refused(
        api.images.LoadImage(image_pb2.LoadImageRequest(chunk=other[at : at + 8]) for at in range(0, len(other), 8))
    )
    assert why.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {await node_of(api, await api.create(image="other:1")) for _ in range(4)} == {"a", "c"}
