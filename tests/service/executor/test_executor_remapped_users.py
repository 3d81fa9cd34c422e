"""Whose users a container gets, when the API and the node disagree: the executor looks for itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import node_service_pb2 as node_pb
from slipway.executor.v1 import runtime_service_pb2 as pb

from executor_service.user_mapping import UserMapping
from tests.fixtures.executor_client import Client, connected, spec_message
from tests.fixtures.fake_host.host import FakeHost
from tests.fixtures.fake_host.specs import container_id

_MAPPING = UserMapping(first_uid=100000, first_gid=200000, count=65536)


def _spec(number: int = 1, **fields: Any) -> spec_pb.ContainerSpec:
    spec = spec_message(number)
    spec.MergeFrom(spec_pb.ContainerSpec(**fields))
    return spec


async def _create(client: Client, spec: spec_pb.ContainerSpec) -> str:
    await client.runtime.CreateContainer(pb.CreateContainerRequest(spec=spec), timeout=60)
    return spec.id


async def test_nobody_gets_other_users_than_the_api_believes(host: FakeHost) -> None:
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        assert not (await client.node.GetNode(node_pb.GetNodeRequest(), timeout=60)).HasField("user_mapping")
        with pytest.raises(grpc.aio.AioRpcError, match="userns_remap was changed meanwhile; repeat the request"):
            await _create(client, _spec(remapped=True))
    host.facts = replace(host.facts, user_mapping=_MAPPING)
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        told = (await client.node.GetNode(node_pb.GetNodeRequest(), timeout=60)).user_mapping
        assert (told.first_uid, told.first_gid, told.count) == (100000, 200000, 65536)
        with pytest.raises(grpc.aio.AioRpcError, match="userns_remap was changed meanwhile") as refused:
            await _create(client, _spec())
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await _create(client, _spec(1, node_users=True))
        await _create(client, _spec(2, remapped=True))


async def test_what_was_remapped_starts_no_other_way(host: FakeHost) -> None:
    host.facts = replace(host.facts, user_mapping=_MAPPING)
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        await _create(client, _spec(remapped=True))
    host.facts = replace(host.facts, user_mapping=None)
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        with pytest.raises(grpc.aio.AioRpcError, match="the executor's userns_remap is off now; set it again"):
            await client.start(container_id(1))
        assert host.traces(container_id(1)) == []


@pytest.mark.parametrize("kind", ["process", "network"])
async def test_namespaces_are_shared_among_the_same_users_only(host: FakeHost, kind: str) -> None:
    joining: dict[str, Any] = {
        "process": {"pid_mode": spec_pb.NAMESPACE_MODE_CONTAINER, "pid_container": container_id(1)},
        "network": {"network_mode": spec_pb.NETWORK_MODE_CONTAINER, "network_container": container_id(1)},
    }
    host.facts = replace(host.facts, user_mapping=_MAPPING)
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        await client.start(await _create(client, _spec(1, node_users=True)))
        spec = _spec(2, remapped=True, **joining[kind])
        if kind == "network":
            del spec.endpoints[:]
        with pytest.raises(grpc.aio.AioRpcError, match=f"cannot join the {kind} namespace .* same userns_mode"):
            await client.start(await _create(client, spec))
