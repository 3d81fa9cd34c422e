"""What the executor refuses of privileges and surroundings, however it was asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from executor_service.container import (
    ContainerSpec,
    Device,
    DeviceRule,
    NamespaceMode,
    Namespaces,
    NetworkMode,
    Seccomp,
    Security,
)
from executor_service.limits import Rlimit
from executor_service.mounts import Mount, MountType
from executor_service.operations.container_rules import violations

_ID = "ab" * 32
_SPEC = ContainerSpec(id=_ID, image_id="", args=("sh",), hostname="box")
_MOUNT = Mount(type=MountType.TMPFS, source="", target="/data")


@pytest.mark.parametrize(
    ("change", "field", "sentence"),
    [
        ({"security": Security(capabilities=("CAP_X",))}, "capabilities[0]", "is not a capability"),
        ({"security": Security(seccomp=Seccomp.PROFILE)}, "seccomp_profile", "exactly when"),
        ({"security": Security(seccomp_profile="{}")}, "seccomp_profile", "exactly when"),
        ({"security": Security(seccomp=Seccomp.PROFILE, seccomp_profile="[]")}, "seccomp_profile", "JSON object"),
        ({"security": Security(apparmor_profile="a b")}, "apparmor_profile", "one printable word"),
        ({"security": Security(masked_paths=("/a/..",))}, "masked_paths.paths[0]", "absolute path"),
        ({"security": Security(readonly_paths=("//a",))}, "readonly_paths.paths[0]", "absolute path"),
        ({"group_add": ("a\n",)}, "group_add[0]", "name or number"),
        ({"namespaces": Namespaces(ipc=NamespaceMode.CONTAINER)}, "ipc_container", "exactly when"),
        ({"namespaces": Namespaces(pid_container=_ID)}, "pid_container", "exactly when"),
        (
            {"namespaces": Namespaces(pid=NamespaceMode.CONTAINER, pid_container="../x")},
            "pid_container",
            "64 lower-case",
        ),
        ({"namespaces": Namespaces(ipc=NamespaceMode.CONTAINER, ipc_container=_ID)}, "ipc_container", "its own"),
        ({"namespaces": Namespaces(pid=NamespaceMode.SHAREABLE)}, "pid_mode", "IPC namespaces only"),
        ({"namespaces": Namespaces(pid=NamespaceMode.HOST), "init": True}, "init", "process namespace"),
        ({"remapped": True, "security": Security(privileged=True)}, "privileged", "cannot be with remapped users"),
        ({"remapped": True, "security": Security(writable_cgroups=True)}, "writable_cgroups", "remapped users"),
        ({"remapped": True, "node_users": True}, "node_users", "contradicts remapped"),
        ({"remapped": True, "network_mode": NetworkMode.HOST}, "network_mode", "remapped users"),
        ({"remapped": True, "namespaces": Namespaces(pid=NamespaceMode.HOST)}, "pid_mode", "remapped users"),
        ({"remapped": True, "namespaces": Namespaces(ipc=NamespaceMode.HOST)}, "ipc_mode", "remapped users"),
        (
            {
                "remapped": True,
                "namespaces": Namespaces(
                    ipc=NamespaceMode.CONTAINER,
                    ipc_container="cd" * 32,
                    pid=NamespaceMode.CONTAINER,
                    pid_container="ef" * 32,
                ),
            },
            "pid_container",
            "must be the same",
        ),
        ({"sysctls": {"net./../kernel": "1"}}, "sysctls['net./../kernel']", "words of letters"),
        ({"sysctls": {"kernel.core_pattern": "|/x"}}, "sysctls['kernel.core_pattern']", "no parameter"),
        ({"sysctls": {"net.x": "a\nb"}}, "sysctls['net.x']", "one printable line"),
        ({"sysctls": {"net.x": "1"}, "network_mode": NetworkMode.HOST}, "sysctls['net.x']", "the node's"),
        (
            {"sysctls": {"kernel.sem": "1"}, "namespaces": Namespaces(ipc=NamespaceMode.HOST)},
            "sysctls['kernel.sem']",
            "IPC namespace",
        ),
        (
            {"sysctls": {"kernel.domainname": "x"}, "namespaces": Namespaces(host_uts=True)},
            "sysctls['kernel.domainname']",
            "the node's",
        ),
        ({"rlimits": (Rlimit(name="NOFILE", soft=1, hard=1),)}, "rlimits[0].name", "no limit"),
        ({"rlimits": (Rlimit(name="RLIMIT_CPU", soft=2, hard=1),)}, "rlimits[0].soft", "above the hard"),
        ({"rlimits": (Rlimit(name="RLIMIT_CPU", soft=-2, hard=1),)}, "rlimits[0]", "at least 0"),
        ({"devices": (Device(source="x", target="/x"),)}, "devices[0].source", "absolute path"),
        ({"devices": (Device(source="/x", target="/x/../y"),)}, "devices[0].target", "absolute path"),
        ({"devices": (Device(source="/x", target="/x", permissions="x"),)}, "devices[0].permissions", "r, w and m"),
        (
            {"devices": (Device(source="/x", target="/data/x"),), "mounts": (_MOUNT,)},
            "devices[0].target",
            "lies on a mount",
        ),
        (
            {"device_rules": (DeviceRule(type="x", major=1, minor=1, permissions="r"),)},
            "device_rules[0].type",
            "a, b or c",
        ),
        ({"device_rules": (DeviceRule(type="a", major=-2, minor=1, permissions="r"),)}, "device_rules[0]", "go to"),
    ],
)
def test_each_rule_names_its_field(change: dict[str, Any], field: str, sentence: str) -> None:
    [violation] = violations(replace(_SPEC, **change))
    assert violation.field == f"spec.{field}"
    assert sentence in violation.description
