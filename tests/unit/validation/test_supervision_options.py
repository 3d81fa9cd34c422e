"""Rules and defaults of restart policies, health checks and dependencies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api_service.records.config import Dependency, RestartPolicy
from api_service.records.health import GrpcProbe, HealthConfig, HttpProbe, TcpProbe
from api_service.validation.dependencies import normalise_dependency, validate_dependencies
from api_service.validation.health import merge_health, probe_program, validate_health
from api_service.validation.restart_policy import normalise_restart_policy, validate_restart_policy

MS, SECOND = 1_000_000, 1_000_000_000
YEARS = 1000 * 365 * 24 * 3600 * SECOND


@pytest.mark.parametrize(
    "policy",
    [
        RestartPolicy(),
        RestartPolicy(name="no"),
        RestartPolicy(name="always", on_unhealthy=True),
        RestartPolicy(name="unless-stopped", multiplier=10.0),
        RestartPolicy(name="on-failure", maximum_retry_count=5),
        RestartPolicy(name="on-failure", initial_delay=MS, max_delay=MS, multiplier=1.0, reset_after=MS),
    ],
)
def test_policies_that_are_fine(policy: RestartPolicy) -> None:
    assert validate_restart_policy(policy, "f", auto_remove=False) == []


@pytest.mark.parametrize(
    ("policy", "auto_remove", "field", "sentence"),
    [
        (RestartPolicy(name="Always"), False, "name", "'Always' is not a restart policy"),
        (RestartPolicy(maximum_retry_count=1), False, "maximum_retry_count", "only 'on-failure' counts"),
        (RestartPolicy(name="always", maximum_retry_count=1), False, "maximum_retry_count", "'always' does not"),
        (RestartPolicy(name="on-failure", maximum_retry_count=-1), False, "maximum_retry_count", "-1 is negative"),
        (RestartPolicy(name="always", initial_delay=1), False, "initial_delay", "1 ms to 365 days"),
        (RestartPolicy(name="always", initial_delay=-SECOND), False, "initial_delay", "-1 s"),
        (RestartPolicy(name="always", max_delay=YEARS), False, "max_delay", "1 ms to 365 days"),
        (RestartPolicy(name="always", reset_after=5), False, "reset_after", "1 ms to 365 days"),
        (RestartPolicy(name="always", max_delay=50 * MS), False, "max_delay", "0.05 s is less than initial_delay, 0.1"),
        (RestartPolicy(name="always", initial_delay=61 * SECOND), False, "max_delay", "60 s is less than"),
        (RestartPolicy(name="always", multiplier=0.9), False, "multiplier", "0.9 is not from 1 to 10"),
        (RestartPolicy(name="always", multiplier=10.1), False, "multiplier", "10.1 is not from 1 to 10"),
        (RestartPolicy(name="always", multiplier=float("nan")), False, "multiplier", "nan is not from 1 to 10"),
        (RestartPolicy(on_unhealthy=True), False, "on_unhealthy", "needs a policy that restarts"),
        (RestartPolicy(name="always"), True, "name", "auto_remove"),
    ],
)
def test_policies_that_are_refused(policy: RestartPolicy, auto_remove: bool, field: str, sentence: str) -> None:
    [violation] = validate_restart_policy(policy, "f", auto_remove=auto_remove)
    assert violation.field == f"f.{field}"
    assert sentence in violation.description


def test_a_policys_defaults() -> None:
    assert normalise_restart_policy(RestartPolicy()) == RestartPolicy(
        name="no", initial_delay=100 * MS, max_delay=60 * SECOND, multiplier=2.0, reset_after=10 * SECOND
    )


@pytest.mark.parametrize(
    "check",
    [
        HealthConfig(),
        HealthConfig(test=("NONE",)),
        HealthConfig(test=("CMD", "a", "")),
        HealthConfig(test=("CMD-SHELL", "exit 0"), interval=MS, timeout=MS, start_period=MS, start_interval=MS),
        HealthConfig(http=HttpProbe(port=1, path="/a?b=%20", headers={"X-A": "b c"}), retries=1),
        HealthConfig(tcp=TcpProbe(port=65535)),
        HealthConfig(grpc=GrpcProbe(port=80, service="a.b")),
    ],
)
def test_checks_that_are_fine(check: HealthConfig) -> None:
    assert validate_health(check, "f") == []


@pytest.mark.parametrize(
    ("check", "field", "sentence"),
    [
        (HealthConfig(test=("CMD", "a"), tcp=TcpProbe(port=1)), "f", "probes by test and tcp"),
        (HealthConfig(test=("RUN", "a")), "f.test", "'RUN' is none of"),
        (HealthConfig(test=("NONE", "a")), "f.test", "nothing can follow"),
        (HealthConfig(test=("CMD",)), "f.test", "must be followed by a program"),
        (HealthConfig(test=("CMD", "")), "f.test", "must be followed by a program"),
        (HealthConfig(test=("CMD-SHELL", "a", "b")), "f.test", "must be followed by one line"),
        (HealthConfig(interval=1), "f.interval", "1 ms to 365 days"),
        (HealthConfig(timeout=-1), "f.timeout", "1 ms to 365 days"),
        (HealthConfig(start_period=1), "f.start_period", "1 ms to 365 days"),
        (HealthConfig(start_interval=1), "f.start_interval", "1 ms to 365 days"),
        (HealthConfig(retries=-1), "f.retries", "-1 is not from 0"),
        (HealthConfig(http=HttpProbe(port=0)), "f.http.port", "0 is not from 1 to 65535"),
        (HealthConfig(grpc=GrpcProbe(port=65536)), "f.grpc.port", "65536 is not from 1 to 65535"),
        (HealthConfig(http=HttpProbe(port=1, path="x")), "f.http.path", "must begin with '/'"),
        (HealthConfig(http=HttpProbe(port=1, path="/ HTTP/1.1\r\nX: y")), "f.http.path", "without blanks"),
        (HealthConfig(http=HttpProbe(port=1, headers={"a": "b\nc"})), 'f.http.headers["a"]', "one line"),
        (HealthConfig(http=HttpProbe(port=1, headers={"a b": "c"})), 'f.http.headers["a b"]', "one line"),
    ],
)
def test_checks_that_are_refused(check: HealthConfig, field: str, sentence: str) -> None:
    [violation] = validate_health(check, "f")
    assert violation.field == field
    assert sentence in violation.description


DEFAULTS = HealthConfig(interval=30 * SECOND, timeout=30 * SECOND, start_interval=5 * SECOND, retries=3)
IMAGE = HealthConfig(test=("CMD", "i"), interval=1 * SECOND, timeout=2 * SECOND, start_period=3 * SECOND, retries=4)


@pytest.mark.parametrize(
    ("check", "image", "merged"),
    [
        (None, None, None),
        (HealthConfig(), None, None),
        (HealthConfig(retries=9), None, None),
        (None, IMAGE, replace(IMAGE, start_interval=5 * SECOND)),
        (HealthConfig(test=("CMD", "a")), None, replace(DEFAULTS, test=("CMD", "a"))),
        (
            HealthConfig(timeout=7 * SECOND, start_interval=8 * SECOND),
            IMAGE,
            replace(IMAGE, timeout=7 * SECOND, start_interval=8 * SECOND),
        ),
        (
            HealthConfig(tcp=TcpProbe(port=1)),
            IMAGE,
            replace(IMAGE, test=(), tcp=TcpProbe(port=1), start_interval=5 * SECOND),
        ),
        (HealthConfig(test=("NONE",)), IMAGE, replace(IMAGE, test=("NONE",), start_interval=5 * SECOND)),
    ],
)
def test_merge_with_the_images_check(
    check: HealthConfig | None, image: HealthConfig | None, merged: HealthConfig | None
) -> None:
    assert merge_health(check, image) == merged


@pytest.mark.parametrize(
    ("test", "shell", "program"),
    [
        (("CMD", "a", "b"), (), ("a", "b")),
        (("CMD-SHELL", "a b"), (), ("/bin/sh", "-c", "a b")),
        (("CMD-SHELL", "a b"), ("/bin/ash", "-ec"), ("/bin/ash", "-ec", "a b")),
    ],
)
def test_program_of_a_probe(test: tuple[str, ...], shell: tuple[str, ...], program: tuple[str, ...]) -> None:
    assert probe_program(test, shell) == program


@pytest.mark.parametrize(
    ("dependency", "field", "sentence"),
    [
        (Dependency(container=""), "f[0].container", "names no container"),
        (Dependency(container="db", condition="up"), "f[0].condition", "'up' is none of"),
        (Dependency(container="db", timeout=-1), "f[0].timeout", "1 ms to 365 days"),
    ],
)
def test_dependencies_that_are_refused(dependency: Dependency, field: str, sentence: str) -> None:
    [violation] = validate_dependencies([dependency], "f")
    assert violation.field == field
    assert sentence in violation.description


def test_dependencies_that_are_fine() -> None:
    dependencies = [Dependency(container="a"), Dependency(container="b", condition="healthy", timeout=MS)]
    assert validate_dependencies(dependencies, "f") == []
    assert normalise_dependency(dependencies[0]) == Dependency(container="a", condition="started", timeout=60 * SECOND)
    [many] = validate_dependencies([Dependency(container="a")] * 257, "f")
    assert "at most 256" in many.description
