"""The table of roles: whole, without rows of RPCs that are gone, and saying what the roles are for."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from common.access import ACCESS
from common.identity import Role


def _served() -> set[str]:
    protos = Path(__file__).parents[3] / "protos"
    names = [".".join(path.relative_to(protos).with_suffix("").parts) for path in protos.glob("slipway/**/*_pb2.py")]
    modules = [*map(importlib.import_module, names), health_pb2, reflection_pb2]
    return {
        f"/{service.full_name}/{rpc.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for rpc in service.methods
    }


def test_every_rpc_of_every_service_has_its_row() -> None:
    served = _served()
    assert "/slipway.v1.ContainerService/CreateContainer" in served
    assert "/slipway.executor.v1.RuntimeService/StartContainer" in served
    assert served - set(ACCESS) == set(), "say in common/access.py who may call these"
    assert set(ACCESS) - served == set(), "there are no such RPCs; remove their rows"


@pytest.mark.parametrize(
    ("method", "roles"),
    [
        ("slipway.v1.ContainerService/InspectContainer", {Role.READER, Role.OPERATOR, Role.ADMIN}),
        ("slipway.v1.ContainerService/CreateContainer", {Role.OPERATOR, Role.ADMIN}),
        ("slipway.v1.ContainerService/CopyFromContainer", {Role.OPERATOR, Role.ADMIN}),
        ("slipway.v1.ExecService/StartExec", {Role.OPERATOR, Role.ADMIN}),
        ("slipway.executor.v1.RuntimeService/CreateContainer", {Role.API}),
        ("slipway.executor.v1.NodeService/GetNode", {Role.API}),
        ("grpc.health.v1.Health/Check", set(Role)),
    ],
)
def test_who_may(method: str, roles: set[Role]) -> None:
    assert ACCESS[f"/{method}"] == roles


def test_nobody_but_the_api_calls_an_executor_and_no_executor_calls_anybody() -> None:
    for method, roles in ACCESS.items():
        if method.startswith("/slipway.executor."):
            assert roles == {Role.API}, method
        elif method.startswith("/slipway."):
            assert not roles & {Role.EXECUTOR, Role.ETCD, Role.API}, method


def test_each_role_may_what_the_lesser_one_may() -> None:
    for method, roles in ACCESS.items():
        assert Role.READER not in roles or Role.OPERATOR in roles, method
        assert Role.OPERATOR not in roles or Role.ADMIN in roles, method
