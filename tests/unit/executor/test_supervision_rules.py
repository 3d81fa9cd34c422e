"""What the executor refuses of restart policies, health checks and dependencies, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from executor_service.container import ContainerSpec
from executor_service.health import ExecProbe, GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe
from executor_service.operations.container_rules import violations
from executor_service.restart import Dependency, DependencyCondition, RestartCondition, RestartPolicy
from tests.fixtures.fake_host.specs import container_id, container_spec

CHECK = HealthCheck(probe=TcpProbe(port=80), interval=1, timeout=1, start_period=0, start_interval=1, retries=1)
ALWAYS = RestartPolicy(condition=RestartCondition.ALWAYS)


def _fields(spec: ContainerSpec) -> list[str]:
    return [violation.field.removeprefix("spec.") for violation in violations(spec)]


def _policy(**changes: Any) -> ContainerSpec:
    return replace(container_spec(), restart_policy=replace(ALWAYS, **changes))


def _check(**changes: Any) -> ContainerSpec:
    return replace(container_spec(), health_check=replace(CHECK, **changes))


@pytest.mark.parametrize(
    "probe", [ExecProbe(args=("a",)), HttpProbe(port=1, path="/x?y", headers={"A": "b c"}), GrpcProbe(port=65535)]
)
def test_what_is_fine(probe: Probe) -> None:
    dependency = Dependency(container_id=container_id(2), condition=DependencyCondition.STARTED, timeout=1)
    spec = replace(_policy(on_unhealthy=True), health_check=replace(CHECK, probe=probe), dependencies=(dependency,))
    assert _fields(spec) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (_policy(initial_delay=0), "restart_policy.initial_delay"),
        (_policy(max_delay=1e12), "restart_policy.max_delay"),
        (_policy(multiplier=0.5), "restart_policy.multiplier"),
        (_policy(multiplier=float("nan")), "restart_policy.multiplier"),
        (replace(_policy(on_unhealthy=True), stop_signal=0), "stop_signal"),
        (_check(interval=0), "health_check.interval"),
        (_check(timeout=float("inf")), "health_check.timeout"),
        (_check(start_interval=-1), "health_check.start_interval"),
        (_check(retries=0), "health_check.retries"),
        (_check(probe=TcpProbe(port=0)), "health_check.port"),
        (_check(probe=ExecProbe(args=())), "health_check.exec.args"),
        (_check(probe=ExecProbe(args=("a\0",))), "health_check.exec.args"),
        (_check(probe=HttpProbe(port=1, path="/ HTTP/1.1\r\nX: y")), "health_check.http.path"),
        (_check(probe=HttpProbe(port=1, headers={"a": "b\r\nc: d"})), "health_check.http.headers['a']"),
        (
            replace(
                container_spec(),
                dependencies=(Dependency(container_id="../x", condition=DependencyCondition.STARTED, timeout=1),),
            ),
            "dependencies[0].container_id",
        ),
    ],
)
def test_what_is_refused(spec: ContainerSpec, field: str) -> None:
    assert _fields(spec) == [field]


def test_a_policy_that_never_restarts_needs_no_numbers() -> None:
    assert _fields(_policy(condition=RestartCondition.NEVER, initial_delay=0, multiplier=0)) == []
