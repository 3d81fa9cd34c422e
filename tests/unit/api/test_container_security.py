"""From the words of a request to what the executor is told."""

from __future__ import annotations

from typing import Any

import pytest

from api_service.executor_client.container_spec import DeviceRule, NamespaceMode, Namespaces, Rlimit, Seccomp
from api_service.operations.container_security import (
    container_device_rules,
    container_namespaces,
    container_rlimits,
    container_security,
)
from api_service.records.config import HostConfig
from api_service.records.resources import Ulimit
from api_service.validation.capabilities import CAPABILITIES, DEFAULT_CAPABILITIES

_DEFAULT = frozenset(DEFAULT_CAPABILITIES)
_ALL = frozenset(CAPABILITIES)


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ({}, _DEFAULT),
        ({"cap_add": ("CAP_BPF",), "cap_drop": ("CAP_CHOWN",)}, _DEFAULT - {"CAP_CHOWN"} | {"CAP_BPF"}),
        ({"cap_add": ("CAP_CHOWN",), "cap_drop": ("CAP_CHOWN",)}, _DEFAULT),
        ({"cap_add": ("CAP_BPF",), "cap_drop": ("ALL",)}, {"CAP_BPF"}),
        ({"cap_add": ("ALL",), "cap_drop": ("CAP_BPF",)}, _ALL - {"CAP_BPF"}),
        ({"cap_add": ("ALL",), "cap_drop": ("ALL",)}, _ALL),
        ({"privileged": True, "cap_drop": ("ALL",)}, _ALL),
    ],
)
def test_capabilities_as_docker_reckons_them(asked: dict[str, Any], held: frozenset[str]) -> None:
    assert frozenset(container_security(HostConfig(**asked)).capabilities) == held


@pytest.mark.parametrize(
    ("privileged", "said", "mode"),
    [
        (False, (), Seccomp.DEFAULT),
        (True, (), Seccomp.UNCONFINED),
        (True, ("seccomp=builtin",), Seccomp.DEFAULT),
        (False, ("seccomp:unconfined",), Seccomp.UNCONFINED),
        (True, ('seccomp={"x": "a=b"}',), Seccomp.PROFILE),
    ],
)
def test_the_filter(privileged: bool, said: tuple[str, ...], mode: Seccomp) -> None:
    security = container_security(HostConfig(privileged=privileged, security_opt=said))
    assert security.seccomp is mode
    assert security.seccomp_profile == ('{"x": "a=b"}' if mode is Seccomp.PROFILE else "")


def test_options() -> None:
    said = ("no-new-privileges", "apparmor=mine", "systempaths=unconfined", "writable-cgroups=1")
    security = container_security(HostConfig(security_opt=said))
    assert (security.no_new_privileges, security.apparmor_profile, security.writable_cgroups) == (True, "mine", True)
    assert security.masked_paths == security.readonly_paths == ()
    plain = container_security(HostConfig(security_opt=("no-new-privileges:false", "apparmor=unconfined")))
    assert (plain.no_new_privileges, plain.apparmor_profile, plain.masked_paths) == (False, "", None)


def test_namespaces_limits_and_rules() -> None:
    host = HostConfig(
        ipc_mode="container:" + "a" * 64,
        pid_mode="host",
        uts_mode="host",
        cgroupns_mode="private",
        ulimits=(Ulimit(name="nofile", soft=1, hard=-1),),
        device_cgroup_rules=("b *:7 rw",),
    )
    assert container_namespaces(host) == Namespaces(
        ipc=NamespaceMode.CONTAINER,
        ipc_container="a" * 64,
        pid=NamespaceMode.HOST,
        host_uts=True,
        private_cgroup=True,
    )
    assert container_rlimits(host) == (Rlimit(name="RLIMIT_NOFILE", soft=1, hard=-1),)
    assert container_device_rules(host) == (DeviceRule(type="b", major=-1, minor=7, permissions="rw"),)
