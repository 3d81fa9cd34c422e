"""The seccomp profile as it is narrowed to a capability set, and the cache of compiled filters."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import Unimplemented
from executor_service.oci.seccomp import custom_seccomp, default_seccomp
from executor_service.oci.seccomp_filters import CompiledFilters
from tests.fixtures.privileges import CAPABILITIES


def profile(*added: str, machine: str = "x86_64") -> Any:
    return default_seccomp(frozenset({*CAPABILITIES, *added}), machine, (6, 1))


def allowed(document: Any) -> set[str]:
    """Calls that are allowed whatever their arguments."""
    rules = [rule for rule in document["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule]
    return {name for rule in rules for name in rule["names"]}


DENIED = {
    "mount",
    "umount2",
    "unshare",
    "setns",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "clone",
    "clone3",
    "io_uring_setup",
}
DENIED |= {
    "reboot",
    "init_module",
    "kexec_load",
    "userfaultfd",
    "socketcall",
    "perf_event_open",
    "swapon",
    "acct",
    "syslog",
}


def test_what_is_not_listed_is_eperm() -> None:
    document = profile()
    assert (document["defaultAction"], document["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert not allowed(document) & DENIED
    assert {"read", "openat", "execve", "futex", "chroot", "arch_prctl"} <= allowed(document)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_TIME", "settimeofday"),
    ],
)
def test_a_capability_brings_its_calls(capability: str, name: str) -> None:
    assert name not in allowed(profile())
    assert name in allowed(profile(capability))


def test_namespaces_are_denied_to_clone_without_sys_admin() -> None:
    rules = {tuple(rule["names"]): rule for rule in profile()["syscalls"]}
    assert rules[("clone3",)] == {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    (argument,) = rules[("clone",)]["args"]
    namespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
    assert (argument["value"], argument["valueTwo"], argument["op"]) == (namespaces, 0, "SCMP_CMP_MASKED_EQ")


def test_every_socket_family_but_alg_and_vsock() -> None:
    """By the low word alone, which is all the kernel looks at: a high word must not lead around the rule."""
    rules = [rule["args"][0] for rule in profile()["syscalls"] if rule["names"] == ["socket"]]
    assert {(rule["op"], rule["value"]) for rule in rules} == {("SCMP_CMP_MASKED_EQ", 0xFFFFFFFF)}
    assert set(range(46)) - {rule["valueTwo"] for rule in rules} == {38, 40}


def test_architectures() -> None:
    assert profile()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert profile(machine="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "arch_prctl" not in allowed(profile(machine="aarch64"))
    with pytest.raises(Unimplemented, match="riscv64"):
        profile(machine="riscv64")


def test_a_filter_is_used_again_for_its_own_profile_alone(tmp_path: Path) -> None:
    filters = CompiledFilters()
    config = {"linux": {"seccomp": profile(), "sysctl": {}}, "annotations": {"mine": "1"}}
    other = {"linux": {"seccomp": profile("CAP_SYS_ADMIN")}}
    assert filters.apply(config) == config
    (tmp_path / "seccomp.bpf").write_bytes(b"\x06" * 16)
    filters.learn(config, tmp_path)
    applied: Any = filters.apply(config)
    compiled = base64.b64encode(b"\x06" * 16).decode()
    assert applied["annotations"] == {"mine": "1", "run.oci.seccomp_bpf_data": compiled}
    assert applied["linux"] == {"seccomp": applied["linux"]["seccomp"], "sysctl": {}}
    assert filters.apply(other) == other
    assert filters.apply({"linux": {}}) == {"linux": {}}


def test_a_runtime_that_did_not_take_the_compiled_filter_would_let_nothing_run(tmp_path: Path) -> None:
    filters = CompiledFilters()
    document = custom(flags=["SECCOMP_FILTER_FLAG_LOG"], architectures=["SCMP_ARCH_X86_64"], syscalls=[_ALLOW])
    (tmp_path / "seccomp.bpf").write_bytes(b"12345678")
    filters.learn({"linux": {"seccomp": document}}, tmp_path)
    applied: Any = filters.apply({"linux": {"seccomp": document}})
    assert applied["linux"]["seccomp"] == {
        "defaultAction": "SCMP_ACT_KILL",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    }
    assert document["syscalls"]


@pytest.mark.parametrize("content", [b"", b"1234567", b"\0" * 8 * 5000])
def test_what_is_no_filter_is_not_kept(tmp_path: Path, content: bytes) -> None:
    filters = CompiledFilters()
    config = {"linux": {"seccomp": profile()}}
    (tmp_path / "seccomp.bpf").write_bytes(content)
    filters.learn(config, tmp_path)
    assert filters.apply(config) == config


def custom(**profile: Any) -> Any:
    text = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", **profile})
    return custom_seccomp(text, frozenset(CAPABILITIES), "x86_64", (6, 1))


_ALLOW = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_KILL"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"includes": {"arches": ["arm", "amd64"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),
        ({"excludes": {"minKernel": "5.0"}}, False),
        ({"includes": None, "excludes": {}}, True),
    ],
)
def test_the_conditions_of_a_rule(conditions: Any, applies: bool) -> None:
    assert ("read" in allowed(custom(syscalls=[{**_ALLOW, **conditions}]))) is applies


def test_a_profile_in_the_runtimes_own_form() -> None:
    document = custom(
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        defaultErrnoRet=38,
        flags=["SECCOMP_FILTER_FLAG_LOG"],
        syscalls=[{"name": "read", "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]}],
    )
    assert document == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {
                "names": ["read"],
                "action": "SCMP_ACT_LOG",
                "args": [{"index": 1, "value": 2, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ({"defaultAction": "ALLOW"}, "defaultAction: 'ALLOW' is not known"),
        ({"syscalls": {}}, "syscalls: must be a list"),
        ({"syscalls": [1]}, r"syscalls\[0\]: must be a JSON object"),
        ({"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}, r"syscalls\[0\].names: must name"),
        ({"syscalls": [{"names": ["a b"], "action": "SCMP_ACT_ALLOW"}]}, "is not the name of a system call"),
        ({"syscalls": [{**_ALLOW, "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]}, r"args\[0\].index"),
        ({"syscalls": [{**_ALLOW, "args": [{"index": 1, "op": "EQ"}]}]}, r"args\[0\].op"),
        ({"syscalls": [{**_ALLOW, "includes": {"caps": [1]}}]}, "includes.caps"),
        ({"syscalls": [{**_ALLOW, "excludes": {"minKernel": "new"}}]}, "minKernel"),
        ({"architectures": ["x86"]}, "is not an architecture"),
        ({"archMap": [{}]}, "is not an architecture"),
        ({"flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}, r"flags\[0\]"),
        ({"listenerMetadata": "x", "listenerPath": "/run/x"}, "listenerPath"),
        ({"defaultErrnoRet": True}, "defaultErrnoRet"),
        ({"syscalls": [_ALLOW] * 5000}, "at most 4096"),
        ({"comment": "x" * 300_000}, "larger than"),
    ],
)
def test_what_is_no_profile_says_where(profile: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        custom(**profile)


def test_an_old_filter_makes_room_for_a_new_one(tmp_path: Path) -> None:
    filters = CompiledFilters()
    (tmp_path / "seccomp.bpf").write_bytes(b"12345678")
    configs = [{"linux": {"seccomp": {"number": number}}} for number in range(65)]
    for config in configs:
        filters.learn(config, tmp_path)
    assert "annotations" not in filters.apply(configs[0])
    assert "annotations" in filters.apply(configs[1])
    assert "annotations" in filters.apply(configs[-1])
