"""Containers that join another's namespaces, and what the node is told of privileges."""

from __future__ import annotations

from typing import Any

import grpc
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import node_service_pb2 as node_pb
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from common.errors import FailedPrecondition
from tests.fixtures.api import Api, refused


def _request(name: str = "", **host: Any) -> pb2.CreateContainerRequest:
    return pb2.CreateContainerRequest(
        name=name,
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
        host_config=container_pb2.HostConfig(**host),
    )


async def test_a_name_becomes_an_id_that_outlives_it(api: Api) -> None:
    owner = await api.create(name="owner", ipc_mode="shareable")
    joiner = await api.create(ipc_mode="container:owner", pid_mode=f"container:{owner[:8]}")

    spec = api.executor.containers[joiner].spec
    assert (spec.ipc_container, spec.pid_container) == (owner, owner)
    assert (spec.ipc_mode, spec.pid_mode) == (spec_pb.NAMESPACE_MODE_CONTAINER,) * 2
    assert not (spec.init or spec.remapped)
    inspected = await api.containers.InspectContainer(pb2.InspectContainerRequest(container=joiner))
    assert inspected.container.host_config.ipc_mode == f"container:{owner}"


async def test_what_cannot_be_joined_is_told_at_create(api: Api) -> None:
    await api.create(name="private")

    missing = await refused(api.containers.CreateContainer(_request(pid_mode="container:nobody")))
    assert missing.code == grpc.StatusCode.NOT_FOUND
    itself = await refused(api.containers.CreateContainer(_request("me", ipc_mode="container:me")))
    assert (itself.code, list(itself.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["host_config.ipc_mode"])
    unshared = await refused(api.containers.CreateContainer(_request(ipc_mode="container:private")))
    assert (unshared.code, unshared.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IPC_NOT_SHAREABLE")
    assert await api.names() == ["private"]


async def test_the_node_is_told_and_the_client_is_warned(api: Api) -> None:
    api.executor.capabilities = ["CAP_CHOWN"]
    created = await api.containers.CreateContainer(
        pb2.CreateContainerRequest(
            config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"], network_disabled=True),
            host_config=container_pb2.HostConfig(privileged=True),
        )
    )
    spec = api.executor.containers[created.id].spec
    assert (spec.privileged, spec.seccomp, spec.init) == (True, spec_pb.SECCOMP_UNCONFINED, True)
    assert (len(spec.capabilities), spec.network_mode) == (41, spec_pb.NETWORK_MODE_NONE)
    assert any("CAP_SYS_ADMIN" in warning for warning in created.warnings)
    lacking = _request(cap_add=["SYS_TIME"])
    assert list((await refused(api.containers.CreateContainer(lacking))).violations) == ["host_config.cap_add[0]"]


async def test_users_are_remapped_where_the_node_says_so_and_nobody_asks_for_its_own(api: Api) -> None:
    api.executor.user_mapping = node_pb.UserMapping(first_uid=100000, first_gid=200000, count=65536)
    own = await api.create(name="own", ipc_mode="shareable", userns_mode="host")
    one = await api.create(name="one", ipc_mode="shareable")
    two = await api.create(name="two", ipc_mode="shareable")
    assert [api.executor.containers[each].spec.remapped for each in (own, one, two)] == [False, True, True]
    assert [api.executor.containers[each].spec.node_users for each in (own, one, two)] == [True, False, False]
    assert api.executor.containers[one].spec.sysctls["net.ipv4.ping_group_range"] == "0 65535"

    asked = await refused(api.containers.CreateContainer(_request(privileged=True, pid_mode="host")))
    assert (asked.code, set(asked.violations)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"host_config.privileged", "host_config.pid_mode"},
    )
    for field in ("pid_mode", "network_mode"):
        other = await refused(api.containers.CreateContainer(_request(**{field: "container:own"})))
        assert (other.code, other.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_USERS")
    both = await refused(api.containers.CreateContainer(_request(ipc_mode="container:one", pid_mode="container:two")))
    assert list(both.violations) == ["host_config.pid_mode"]
    await api.create(ipc_mode="container:one", pid_mode=f"container:{one}")


async def test_a_node_that_changed_its_users_is_asked_anew(api: Api) -> None:
    await api.create(name="before")
    api.executor.user_mapping = node_pb.UserMapping(first_uid=100000, first_gid=100000, count=65536)
    api.executor.fault("CreateContainer", error=FailedPrecondition("changed", reason="USERS_CHANGED"))
    first = await refused(api.containers.CreateContainer(_request("second")))
    assert (first.code, first.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "USERS_CHANGED")
    again = await api.create(name="second")
    assert api.executor.containers[again].spec.remapped
