"""Three nodes in namespaces of their own, three members of etcd, two API services: real containers across them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest
import pytest_asyncio
from etcdserverpb import etcd_service_pb2 as etcd_pb
from etcdserverpb import etcd_service_pb2_grpc as etcd_rpc
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb
from slipway.executor.v1 import runtime_service_pb2_grpc as runtime_rpc
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb
from slipway.v1 import node_service_pb2 as node_pb

from tests.fixtures.api import refused
from tests.fixtures.cluster import (
    API_PORT,
    ETCD_PORT,
    EXECUTOR_PORT,
    LOST,
    PATIENCE,
    READY,
    UNREACHABLE,
    Cluster,
    cluster,
    live,
    run_on,
    stranger,
)
from tests.fixtures.cluster_crew import unharmed
from tests.fixtures.cluster_records import all_equal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

# The resolver of a static busybox ends with a segmentation fault, whoever runs it; its nslookup and nc do without.
FETCH = """
for name; do
    until at=$(nslookup -type=a $name | awk '/^Name/ { found = 1 } /^Address/ && found { print $2 }') &&
        printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 "$at" 80 | grep ^web; do usleep 50000; done
done
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster() as made:
        yield made


async def test_containers_on_three_nodes_talk_by_name(three: Cluster) -> None:
    """Each serves its own name, and asks the other two for theirs, whichever API service has made it."""
    request = network_pb.CreateNetworkRequest(name="wide", driver="overlay")
    await three.one.networks.CreateNetwork(request, timeout=30)
    names = {node: f"web-{node}" for node in three.machines}
    serve = "mkdir /www; echo $0 > /www/index.html; exec httpd -f -p 80 -h /www"
    webs = await asyncio.gather(
        *(
            run_on(three.replicas[at % 2], node, name, "sh", "-c", serve, name, network="wide")
            for at, (node, name) in enumerate(names.items())
        )
    )
    listed = await three.other.nodes.ListNodes(node_pb.ListNodesRequest(), timeout=10)
    assert {each.name: each.usage.containers_running for each in listed.nodes} == dict.fromkeys(names, 1)
    for node in names:
        asking = await run_on(
            three.other, node, f"asks-{node}", "sh", "-c", FETCH, "-", *names.values(), network="wide"
        )
        ended = await three.one.wait(asking)
        assert (ended.exit_code, (await three.one.logs(asking)).decode().split()) == (0, list(names.values()))
        await three.one.remove(asking)
    await all_equal(three)
    await asyncio.gather(*(three.other.remove(each) for each in webs))
    await three.one.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network="wide"), timeout=30)
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
                refusal = await refused(replica.containers.StopContainer(request, timeout=30))
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ANOTHER_EXECUTOR")
                assert (await replica.inspect("stays-n3")).state.running
                await live(replica, "n2")
            async with grpc.aio.insecure_channel(other.address) as channel:
                runtime = runtime_rpc.RuntimeServiceStub(channel)
                listed = await runtime.ListContainers(runtime_pb.ListContainersRequest(), timeout=10)
                assert (list(listed.containers), listed.sequence) == ([], 0)
        await three.until("n3", READY)
