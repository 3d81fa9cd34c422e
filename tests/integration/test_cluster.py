"""Three nodes in namespaces of their own, three members of etcd, two API services: real containers across them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from slipway.v1 import network_service_pb2 as network_pb
from slipway.v1 import node_service_pb2 as node_pb

from tests.fixtures.cluster import Cluster, cluster, run_on
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
