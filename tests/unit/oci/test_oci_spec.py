"""The OCI configuration of a container: Docker's defaults, and what is refused before a runtime sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import Internal, InvalidArgument
from executor_service.container import ContainerSpec, Namespaces, NetworkMode
from executor_service.oci.capabilities import CAPABILITIES as ALL_CAPABILITIES
from executor_service.oci.cgroups import CgroupLayout
from executor_service.oci.host import HostFacts
from executor_service.oci.mounts import NetworkFiles
from executor_service.oci.spec import build_spec, check_working_dir
from executor_service.oci.users import ResolvedUser
from tests.fixtures.privileges import CAPABILITIES, SECURITY

HOST = HostFacts(
    machine="x86_64",
    seccomp=True,
    cgroup_layout=CgroupLayout.V1,
    thermal_throttle=("/sys/x/throttle",),
    capabilities=frozenset(ALL_CAPABILITIES),
    kernel=(6, 1),
)
SPEC = ContainerSpec(id="ab" * 32, image_id="", args=("sh",), hostname="box", env=("PATH=/bin",), security=SECURITY)
IN_ORDER = sorted(CAPABILITIES, key=ALL_CAPABILITIES.index)
ROOT = ResolvedUser(uid=0, gid=0, additional_gids=(0,), home="/root")


def build(
    spec: ContainerSpec = SPEC, *, netns: str = "/run/netns/x", user: ResolvedUser = ROOT, host: HostFacts = HOST
) -> Any:
    return build_spec(
        spec,
        rootfs=Path("/merged"),
        netns_path=netns,
        files=NetworkFiles.in_directory(Path("/files")),
        user=user,
        cgroups_path="/slipway/" + spec.id,
        host=host,
    )


def mounts(config: Any) -> dict[str, Any]:
    return {mount["destination"]: mount for mount in config["mounts"]}


def test_parents_are_mounted_before_what_is_in_them() -> None:
    order = list(mounts(build()))
    for path in order:
        for parent in Path(path).parents:
            if str(parent) in order:
                assert order.index(str(parent)) < order.index(path)


def test_dev_is_always_a_tmpfs() -> None:
    assert mounts(build(replace(SPEC, readonly_rootfs=True)))["/dev"]["type"] == "tmpfs"


def test_shm_has_the_size_asked_for() -> None:
    assert "size=12345" in mounts(build(replace(SPEC, shm_size=12345)))["/dev/shm"]["options"]


def test_a_read_only_root_leaves_only_what_programs_need_writable() -> None:
    config = build(replace(SPEC, readonly_rootfs=True))
    writable = {path for path, mount in mounts(config).items() if "ro" not in mount["options"]}
    assert config["root"] == {"path": "/merged", "readonly": True}
    assert writable == {"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"}


@pytest.mark.parametrize("private", [True, False])
def test_the_cgroup_namespace_is_what_was_asked_for(private: bool) -> None:
    config = build(replace(SPEC, namespaces=Namespaces(private_cgroup=private)))
    kinds = [namespace["type"] for namespace in config["linux"]["namespaces"]]
    assert ("cgroup" in kinds) is private
    assert {"mount", "uts", "pid", "ipc", "network"} <= set(kinds)


def test_the_hosts_network_has_no_namespace_and_no_network_sysctl() -> None:
    linux = build(replace(SPEC, network_mode=NetworkMode.HOST), netns="")["linux"]
    assert all(namespace["type"] != "network" for namespace in linux["namespaces"])
    assert "sysctl" not in linux


@pytest.mark.parametrize(
    ("mode", "netns"), [(NetworkMode.HOST, "/x"), (NetworkMode.BRIDGE, ""), (NetworkMode.NONE, "")]
)
def test_a_sandbox_that_does_not_fit_the_mode_never_means_the_hosts_network(mode: NetworkMode, netns: str) -> None:
    with pytest.raises(Internal):
        build(replace(SPEC, network_mode=mode), netns=netns)


def test_sysctls() -> None:
    assert build(replace(SPEC, domainname="d", sysctls={"net.core.somaxconn": "7"}))["linux"]["sysctl"] == {
        "kernel.domainname": "d",
        "net.core.somaxconn": "7",
    }


def test_capabilities_of_root_and_of_others() -> None:
    root = build()["process"]["capabilities"]
    other = build(user=ResolvedUser(uid=5, gid=5))["process"]["capabilities"]
    assert root["bounding"] == root["effective"] == root["permitted"] == IN_ORDER
    assert other["bounding"] == IN_ORDER
    assert other["effective"] == other["permitted"] == []
    for capabilities in (root, other):
        assert capabilities["inheritable"] == capabilities["ambient"] == []


def test_environment_defaults_yield_to_what_is_given() -> None:
    assert build()["process"]["env"] == ["HOSTNAME=box", "HOME=/root", "PATH=/bin"]
    env = build(replace(SPEC, terminal=True, env=("HOME=/h", "TERM=vt100", "HOSTNAME=other")))["process"]["env"]
    assert sorted(entry for entry in env if not entry.startswith("PATH=")) == [
        "HOME=/h",
        "HOSTNAME=other",
        "TERM=vt100",
    ]
    assert "TERM=xterm" in build(replace(SPEC, terminal=True))["process"]["env"]


def test_devices_are_denied_first() -> None:
    rules = build()["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {(rule["type"], rule["major"], rule["minor"]) for rule in rules[1:]} == {
        ("c", 1, 3),
        ("c", 1, 5),
        ("c", 1, 8),
        ("c", 1, 9),
        ("c", 5, 0),
        ("c", 5, 1),
    }


def test_paths_are_masked() -> None:
    linux = build()["linux"]
    assert {"/proc/kcore", "/proc/keys", "/proc/interrupts", "/sys/firmware", "/sys/x/throttle"} <= set(
        linux["maskedPaths"]
    )
    assert linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def test_no_filter_where_the_kernel_has_none() -> None:
    assert "seccomp" in build()["linux"]
    assert "seccomp" not in build(host=replace(HOST, seccomp=False))["linux"]


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/fd/7",
        "/proc/self/fd",
        "//proc/self/./fd/8/../9",
        "/x/../proc/self/fd/3",
        "/proc/1/root",
        "/proc/thread-self/cwd/x",
        "/proc/12/task/13/fd/4",
        "/dev/fd/3",
        "/dev/./fd",
        "relative",
        "",
        "/a\0b",
    ],
)
def test_a_hostile_working_directory_is_refused(path: str) -> None:
    assert [violation.field for violation in check_working_dir(path)] == ["config.working_dir"]
    with pytest.raises(InvalidArgument):
        build(replace(SPEC, working_dir=path))


@pytest.mark.parametrize("path", ["/", "/srv/app", "/proc", "/proc/sys", "/my/proc/self/fd", "/proc/selfish/fd"])
def test_an_ordinary_working_directory_is_kept(path: str) -> None:
    assert build(replace(SPEC, working_dir=path))["process"]["cwd"] == path


@pytest.mark.parametrize("key", ["run.oci.seccomp_bpf_data", "run.oci.hooks.stdout", "io.crun.keep", "org.criu.config"])
def test_annotations_that_steer_the_runtime_are_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match="reserved"):
        build(replace(SPEC, annotations={key: "x"}))
    assert build(replace(SPEC, annotations={"a": "b"}))["annotations"] == {"a": "b"}


@pytest.mark.parametrize("identifier", ["", "..", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_a_hostile_id_is_refused(identifier: str) -> None:
    with pytest.raises(InvalidArgument):
        build(replace(SPEC, id=identifier))


def test_no_command_and_nul_characters_are_told_together() -> None:
    with pytest.raises(InvalidArgument) as refused:
        build(replace(SPEC, args=(), env=("A=\0",), working_dir="x"))
    assert len(refused.value.violations) == 3
