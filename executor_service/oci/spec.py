"""From a resolved container to its OCI `config.json` (runtime-spec 1.0.2), with Docker's defaults. Reads nothing."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import Internal, InvalidArgument, Violation
from executor_service.container import CONTAINER_ID, ContainerSpec, NetworkMode
from executor_service.mount_staging import StagedMount
from executor_service.oci.block_devices import BlockDevices
from executor_service.oci.capabilities import DEFAULT_CAPABILITIES, process_capabilities
from executor_service.oci.cgroups import CgroupLayout
from executor_service.oci.host import HostFacts
from executor_service.oci.mounts import MASKED_PATHS, READONLY_PATHS, NetworkFiles, container_mounts
from executor_service.oci.resources import oci_resources
from executor_service.oci.seccomp import default_seccomp
from executor_service.oci.user_mounts import rootfs_propagation, with_user_mounts
from executor_service.oci.users import ResolvedUser

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A working directory that goes through somebody's descriptors or root can lead out of the container (CVE-2024-21626).
_PROCESS_LINK = re.compile(r"/proc/(?:self|thread-self|\d+)(?:/task/\d+)?/(?:fd|cwd|root|exe|map_files)(?:/|$)")

_ALLOWED_DEVICES = (("c", 1, 5), ("c", 1, 3), ("c", 1, 9), ("c", 1, 8), ("c", 5, 0), ("c", 5, 1))


def build_spec(
    spec: ContainerSpec,
    *,
    rootfs: Path,
    netns_path: str,
    files: NetworkFiles,
    user: ResolvedUser,
    cgroups_path: str,
    host: HostFacts,
    mounts: Sequence[StagedMount] = (),
    block_devices: BlockDevices | None = None,
) -> dict[str, object]:
    """The runtime's configuration. `cgroups_path` is absolute below the cgroup root, and ends in the container's id;
    `block_devices` has the numbers of those that the limits name.

    `netns_path` is the sandbox's namespace, and empty exactly with the host's network. Raises InvalidArgument for what
    the container's specification may not say.
    """
    _check(spec, netns_path=netns_path)
    linux = _linux(spec, netns_path=netns_path, cgroups_path=cgroups_path, host=host, block_devices=block_devices or {})
    config: dict[str, object] = {
        "ociVersion": "1.0.2",
        "process": _process(spec, user),
        "root": {"path": str(rootfs), "readonly": spec.readonly_rootfs},
        "hostname": spec.hostname,
        "mounts": with_user_mounts(
            container_mounts(files=files, shm_size=spec.shm_size, readonly=spec.readonly_rootfs), mounts
        ),
        "linux": linux,
    }
    if propagation := rootfs_propagation(mounts):
        linux["rootfsPropagation"] = propagation
    if spec.annotations:
        config["annotations"] = _annotations(spec)
    return config


def check_working_dir(path: str) -> list[Violation]:
    """The rules for a working directory that need no file system."""
    field = "config.working_dir"
    if not path.startswith("/"):
        return [Violation(field=field, description=f"{path!r} is not absolute; begin it with '/'")]
    if "\0" in path:
        return [Violation(field=field, description=f"{path!r} holds a NUL character")]
    normal = posixpath.normpath(path)
    if _PROCESS_LINK.match("/" + normal.lstrip("/")):
        return [
            Violation(
                field=field, description=f"{path!r} leads through a process's descriptors; name a directory itself"
            )
        ]
    return []


def _check(spec: ContainerSpec, *, netns_path: str) -> None:
    if not CONTAINER_ID.fullmatch(spec.id):
        raise InvalidArgument(f"container id {spec.id!r} is not 64 lower-case hexadecimal characters")
    violations = check_working_dir(spec.working_dir)
    if not spec.args:
        violations.append(
            Violation(field="config.cmd", description="no command: give one, or use an image that has one")
        )
    if any("\0" in text for text in (*spec.args, *spec.env, spec.hostname, spec.domainname)):
        violations.append(
            Violation(field="config", description="arguments, environment and names cannot hold NUL characters")
        )
    if violations:
        raise InvalidArgument(violations=violations)
    if bool(netns_path) == (spec.network_mode is NetworkMode.HOST):
        raise Internal(f"container {spec.id}: network mode {spec.network_mode.value} with the namespace {netns_path!r}")


def _process(spec: ContainerSpec, user: ResolvedUser) -> dict[str, object]:
    return {
        "terminal": spec.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": list(spec.args),
        "env": _environment(spec, user),
        "cwd": spec.working_dir,
        "capabilities": process_capabilities(DEFAULT_CAPABILITIES, uid=user.uid),
        "noNewPrivileges": False,
        # conmon protects itself from the OOM killer; without this its child would inherit that.
        "oomScoreAdj": spec.oom_score_adj,
    }


def _environment(spec: ContainerSpec, user: ResolvedUser) -> list[str]:
    defaults = {"PATH": DEFAULT_PATH, "HOSTNAME": spec.hostname}
    if spec.terminal:
        defaults["TERM"] = "xterm"
    defaults["HOME"] = user.home
    given = {entry.partition("=")[0] for entry in spec.env}
    return [f"{name}={value}" for name, value in defaults.items() if name not in given] + list(spec.env)


def _linux(
    spec: ContainerSpec, *, netns_path: str, cgroups_path: str, host: HostFacts, block_devices: BlockDevices
) -> dict[str, object]:
    limits = oci_resources(
        spec.resources,
        block_devices,
        v2=host.cgroup_layout is CgroupLayout.V2,
        swap="memory_swap" in host.cgroups.names,
    )
    linux: dict[str, object] = {
        "cgroupsPath": cgroups_path,
        "namespaces": _namespaces(netns_path=netns_path, layout=host.cgroup_layout),
        "resources": {"devices": _device_rules(), **limits},
        "maskedPaths": [*MASKED_PATHS, *host.thermal_throttle],
        "readonlyPaths": list(READONLY_PATHS),
    }
    if sysctl := _sysctls(spec):
        linux["sysctl"] = sysctl
    if host.seccomp:
        linux["seccomp"] = default_seccomp(frozenset(DEFAULT_CAPABILITIES), host.machine)
    return linux


def _namespaces(*, netns_path: str, layout: CgroupLayout) -> list[dict[str, str]]:
    namespaces = [{"type": kind} for kind in ("mount", "uts", "pid", "ipc")]
    if netns_path:
        namespaces.append({"type": "network", "path": netns_path})
    if layout is CgroupLayout.V2:
        namespaces.append({"type": "cgroup"})
    return namespaces


def _device_rules() -> list[dict[str, object]]:
    """Deny everything but null, zero, random, urandom, tty and console; the runtime adds pts, ptmx and mknod itself."""
    allowed: list[dict[str, object]] = [
        {"allow": True, "type": kind, "major": major, "minor": minor, "access": "rwm"}
        for kind, major, minor in _ALLOWED_DEVICES
    ]
    return [{"allow": False, "access": "rwm"}, *allowed]


def _sysctls(spec: ContainerSpec) -> dict[str, str]:
    sysctls: dict[str, str] = {}
    if spec.domainname:
        # The NIS domain name: the same effect as setdomainname(2), without needing support of the runtime.
        sysctls["kernel.domainname"] = spec.domainname
    if spec.network_mode is not NetworkMode.HOST:
        sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
        sysctls["net.ipv4.ping_group_range"] = "0 2147483647"
    return sysctls


def _annotations(spec: ContainerSpec) -> dict[str, str]:
    """The user's annotations. Those that steer the runtime itself are refused: crun would run hooks or skip seccomp."""
    reserved = [
        key for key in spec.annotations if key.startswith(("run.oci.", "module.wasm.", "org.criu.", "org.systemd."))
    ]
    if reserved:
        raise InvalidArgument(
            violations=[
                Violation(
                    field=f"host_config.annotations[{key}]", description=f"{key!r} is reserved for the OCI runtime"
                )
                for key in reserved
            ]
        )
    return dict(spec.annotations)
