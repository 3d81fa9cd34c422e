"""Three nodes in namespaces of their own, three members of etcd, two API services: real containers across them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from etcdserverpb import etcd_service_pb2 as etcd_pb
from etcdserverpb import etcd_service_pb2_grpc as etcd_rpc
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb
from slipway.executor.v1 import runtime_service_pb2_grpc as runtime_rpc
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb
from slipway.v1 import node_service_pb2 as node_pb

from common.identity import Role
from tests.fixtures.api import refusal, refused
from tests.fixtures.cluster import (
    API_PORT,
    ETCD_PORT,
    EXECUTOR_PORT,
    LOST,
    PATIENCE,
    READY,
    UNREACHABLE,
    Cluster,
    live,
    run_on,
)
from tests.fixtures.cluster_crew import NETWORK, fetched, serving, unharmed
from tests.fixtures.cluster_records import all_equal
from tests.fixtures.cluster_strangers import CLONE_PORT, clone, expired, stranger
from tests.fixtures.slipway import Slipway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


async def test_containers_on_three_nodes_talk_by_name(three: Cluster) -> None:
    """Each serves its own name, and asks the other two for theirs, whichever API service has made it."""
    request = network_pb.CreateNetworkRequest(name=NETWORK, driver="overlay")
    await three.one.networks.CreateNetwork(request, timeout=30)
    names = {node: f"web-{node}" for node in three.machines}
    webs = await asyncio.gather(
        *(
            run_on(three.replicas[at % 2], node, name, *serving(name), network=NETWORK)
            for at, (node, name) in enumerate(names.items())
        )
    )
    listed = await three.other.nodes.ListNodes(node_pb.ListNodesRequest(), timeout=10)
    assert {each.name: each.usage.containers_running for each in listed.nodes} == dict.fromkeys(names, 1)
    for node in names:
        assert await fetched(three.other, node, *names.values()) == list(names.values())
    await all_equal(three)
    await asyncio.gather(*(three.other.remove(each) for each in webs))
    await three.one.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network=NETWORK), timeout=30)
    await all_equal(three)


async def test_certificates_of_the_wrong_role_open_nothing(three: Cluster) -> None:
    """Neither API services nor executors nor members of etcd are spoken to with somebody else's."""
    stop = pb.StopContainerRequest(container="any")
    read = etcd_pb.RangeRequest(key=b"/slipway/")
    ours, etcds = three.directory / "api-api1", three.directory / "etcd-ca-api-api1"
    async with three.channel(three.certificate("reader", "bob"), f"10.90.0.1:{API_PORT}") as channel:
        bob = three.one.on(channel)
        await bob.nodes.ListNodes(node_pb.ListNodesRequest(), timeout=10)
        assert await code_of(bob.containers.StopContainer(stop, timeout=10)) is grpc.StatusCode.PERMISSION_DENIED
    for certificate in (three.certificate("executor", "n9"), etcds):
        async with three.channel(certificate, f"10.90.0.1:{API_PORT}", authority=ours) as channel:
            eve = three.one.on(channel)
            assert await code_of(eve.containers.StopContainer(stop, timeout=10)) is grpc.StatusCode.UNAVAILABLE
    for role in ("admin", "operator"):
        own, name = three.certificate(role, "eve"), "n3.executor.slipway.internal"
        async with three.channel(own, f"10.90.0.3:{EXECUTOR_PORT}", name=name) as channel:
            listing = runtime_rpc.RuntimeServiceStub(channel).ListContainers(
                runtime_pb.ListContainersRequest(), timeout=10
            )
            assert await code_of(listing) is grpc.StatusCode.PERMISSION_DENIED
    for certificate, wanted in ((etcds, None), (ours, grpc.StatusCode.UNAVAILABLE)):
        async with three.channel(certificate, f"10.90.0.1:{ETCD_PORT}", authority=etcds) as channel:
            assert await code_of(etcd_rpc.KVStub(channel).Range(read, timeout=10)) is wanted


async def code_of(call: Awaitable[object]) -> grpc.StatusCode | None:
    """None: it succeeded."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def test_certificates_that_have_ended(three: Cluster) -> None:
    """A client gets no connection, and no API service connects to an executor, until it has a good one: what runs there
    runs on, and no service is started again for it."""
    with expired(three, Role.ADMIN, "ann") as old:
        async with three.channel(old, f"10.90.0.1:{API_PORT}") as channel:
            listing = three.one.on(channel).nodes.ListNodes(node_pb.ListNodesRequest(), timeout=10)
            assert await code_of(listing) is grpc.StatusCode.UNAVAILABLE
    async with unharmed(three):
        with expired(three, Role.EXECUTOR, "n3"):
            await three.machines["n3"].executor.kill()  # its connections were made with the one before
            await three.machines["n3"].executor.start()
            await three.until("n3", UNREACHABLE, LOST)
            for replica in three.replicas:
                stop = pb.StopContainerRequest(container="stays-n3", timeout=0)
                assert await code_of(replica.containers.StopContainer(stop, timeout=30)) is grpc.StatusCode.UNAVAILABLE
                assert (await replica.inspect("stays-n3")).state.running
                await live(replica, "n2")
        await three.until("n3", READY)
        await live(three.other, "n3")


async def test_nodes_that_there_are_not_and_containers_that_fit_nowhere(three: Cluster) -> None:
    for replica in three.replicas:
        for asked in (
            replica.nodes.InspectNode(node_pb.InspectNodeRequest(node="n9"), timeout=10),
            replica.nodes.UpdateNode(node_pb.UpdateNodeRequest(node="n9", set_labels={"a": "b"}), timeout=10),
            replica.nodes.RemoveNode(node_pb.RemoveNodeRequest(node="n9", force=True), timeout=10),
        ):
            said = await refused(asked)
            assert (said.code, said.reason) == (grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND")
        for wanted, code, why in (
            (["node.name==n9"], grpc.StatusCode.FAILED_PRECONDITION, "3 of 3 are not node.name==n9"),
            (["node.labels.zone==a"], grpc.StatusCode.FAILED_PRECONDITION, "3 of 3 are not node.labels.zone==a"),
        ):
            said = await refused(_placed(replica, constraints=wanted))
            assert (said.code, said.reason) == (code, "NO_NODE_FITS")
            assert why in said.message
        said = await refused(_placed(replica, reserve_memory=1 << 60))
        assert (said.code, said.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_NODE_FITS")
        assert "3 of 3 lack memory" in said.message
    await all_equal(three)


def _placed(replica: Slipway, **placement: Any) -> Awaitable[str]:
    return replica.create("true", network_mode="none", placement=container_pb2.Placement(**placement))


async def test_two_nodes_with_one_name_or_one_address(three: Cluster) -> None:
    """Asked of both API services at the same time: one of them wins."""
    for names, addresses, reason in (
        (("n4", "n4"), ("10.90.0.4:50052", "10.90.0.5:50052"), "NODE_NAME_IN_USE"),
        (("n4", "n5"), ("10.90.0.4:50052", "10.90.0.4:50052"), "NODE_ADDRESS_IN_USE"),
        (("n4", "n5"), ("10.90.0.3:50052", "10.90.0.3:50052"), "NODE_ADDRESS_IN_USE"),
        (("n3", "n3"), ("10.90.0.4:50052", "10.90.0.5:50052"), "NODE_NAME_IN_USE"),
    ):
        asked = [
            replica.nodes.AddNode(node_pb.AddNodeRequest(name=name, address=address), timeout=30)
            for replica, name, address in zip(three.replicas, names, addresses, strict=True)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        errors = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert {refusal(each).reason for each in errors} == {reason}
        added = [each.node.name for each in answers if not isinstance(each, BaseException)]
        assert len(added) == (0 if names[0] == "n3" or addresses[0].startswith("10.90.0.3") else 1)
        for name in added:
            await three.other.nodes.RemoveNode(node_pb.RemoveNodeRequest(node=name), timeout=30)
    await all_equal(three)


async def test_two_nodes_with_one_id(three: Cluster) -> None:
    """As of a machine whose disk was copied: the second is taken in by nobody, and asked for nothing. The first goes
    on."""
    machine = three.machines["n3"]
    request = node_pb.AddNodeRequest(name="n4", address=f"{machine.address}:{CLONE_PORT}")
    async with unharmed(three), clone(three, machine, "n4") as second:
        # When it is not known yet whose id it has, it is taken in, and refused by who follows it.
        await three.one.nodes.AddNode(request, timeout=30)
        await second.start()
        async with asyncio.timeout(PATIENCE):
            while "'n3'" not in (node := await three.node("n4")).state_reason:
                await asyncio.sleep(0.05)
        assert node.state in (UNREACHABLE, LOST)
        await three.other.nodes.RemoveNode(node_pb.RemoveNodeRequest(node="n4"), timeout=30)
        for replica in three.replicas:
            why = await refused(replica.nodes.AddNode(request, timeout=30))
            assert (why.code, why.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NODE_EXECUTOR_IN_USE")
        async with grpc.aio.insecure_channel(second.address) as channel:
            runtime = runtime_rpc.RuntimeServiceStub(channel)
            listed = await runtime.ListContainers(runtime_pb.ListContainersRequest(), timeout=10)
            assert (list(listed.containers), listed.sequence) == ([], 0)
        assert (await three.node("n3")).state == READY
        await live(three.one, "n3")


async def test_another_executor_at_the_address_of_a_node(three: Cluster) -> None:
    """With the node's own certificate: it is told apart by its id, and asked for nothing."""
    machine = three.machines["n3"]
    async with unharmed(three):
        async with stranger(three, machine) as other:
            async with asyncio.timeout(PATIENCE):
                while "another" not in (node := await three.node("n3")).state_reason:
                    await asyncio.sleep(0.05)
            assert node.state in (UNREACHABLE, LOST)
            for replica in three.replicas:
                request = pb.StopContainerRequest(container="stays-n3", timeout=0)
                said = await refused(replica.containers.StopContainer(request, timeout=30))
                assert (said.code, said.reason) == (grpc.StatusCode.UNAVAILABLE, "ANOTHER_EXECUTOR")
                assert (await replica.inspect("stays-n3")).state.running
                await live(replica, "n2")
            async with grpc.aio.insecure_channel(other.address) as channel:
                runtime = runtime_rpc.RuntimeServiceStub(channel)
                listed = await runtime.ListContainers(runtime_pb.ListContainersRequest(), timeout=10)
                assert (list(listed.containers), listed.sequence) == ([], 0)
        await three.until("n3", READY)
