"""From a resolved container to its OCI `config.json` (runtime-spec 1.0.2), with Docker's defaults. Reads nothing."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.container import CONTAINER_ID, RESERVED_ANNOTATIONS, ContainerSpec
from executor_service.mount_staging import StagedMount
from executor_service.oci.block_devices import BlockDevices
from executor_service.oci.cgroups import CgroupLayout
from executor_service.oci.devices import HostDevice, device_nodes, device_rules
from executor_service.oci.host import HostFacts
from executor_service.oci.init import init_args, init_mounts
from executor_service.oci.mounts import NetworkFiles, container_mounts
from executor_service.oci.namespaces import NOTHING_JOINED, Joined, namespaces
from executor_service.oci.resources import oci_resources
from executor_service.oci.security import (
    masked_paths,
    process_rlimits,
    process_security,
    readonly_paths,
    seccomp_filter,
)
from executor_service.oci.user_mounts import rootfs_propagation, with_user_mounts
from executor_service.oci.users import ResolvedUser

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A working directory that goes through somebody's descriptors or root can lead out of the container (CVE-2024-21626).
_PROCESS_LINK = re.compile(
    r"(?:/proc/(?:self|thread-self|\d+)(?:/task/\d+)?/(?:fd|cwd|root|exe|map_files)|/dev/(?:fd|stdin|stdout|stderr))(?:/|$)"
)


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
    joined: Joined = NOTHING_JOINED,
    devices: Sequence[HostDevice] = (),
    shm: Path | None = None,
) -> dict[str, object]:
    """The runtime's configuration. `cgroups_path` is absolute below the cgroup root, and ends in the container's id;
    `block_devices` has the numbers of those that the limits name.

    `netns_path` is the sandbox's namespace, and empty exactly with the host's network. `shm` is a directory of this
    node for /dev/shm; None gives it memory of its own. Raises InvalidArgument for what the container's specification
    may not say, FailedPrecondition for what this node cannot.
    """
    _check(spec)
    linux = _linux(spec, host=host, cgroups_path=cgroups_path, devices=devices, block_devices=block_devices or {})
    linux["namespaces"] = namespaces(spec, netns_path=netns_path, joined=joined)
    own_mounts = container_mounts(spec, files=files, shm=shm)
    config: dict[str, object] = {
        "ociVersion": "1.0.2",
        "process": _process(spec, user, host),
        "root": {"path": str(rootfs), "readonly": spec.readonly_rootfs},
        "mounts": [*with_user_mounts(own_mounts, mounts), *init_mounts(spec, host)],
        "linux": linux,
    }
    if propagation := rootfs_propagation(mounts):
        linux["rootfsPropagation"] = propagation
    if not spec.namespaces.host_uts:
        config["hostname"] = spec.hostname
    if spec.hooks:
        config["hooks"] = _hooks(spec)
    if spec.annotations:
        config["annotations"] = _annotations(spec)
    return config


def _hooks(spec: ContainerSpec) -> dict[str, list[dict[str, object]]]:
    hooks: dict[str, list[dict[str, object]]] = {}
    for hook in spec.hooks:
        told: dict[str, object] = {"path": hook.path, "args": list(hook.args), "env": list(hook.env)}
        if hook.timeout is not None:
            told["timeout"] = hook.timeout
        hooks.setdefault(hook.name, []).append(told)
    return hooks


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


def _check(spec: ContainerSpec) -> None:
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


def _process(spec: ContainerSpec, user: ResolvedUser, host: HostFacts) -> dict[str, object]:
    process: dict[str, object] = {
        "terminal": spec.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": [*init_args(spec), *spec.args],
        "env": _environment(spec, user),
        "cwd": spec.working_dir,
        # conmon protects itself from the OOM killer; without this its child would inherit that.
        "oomScoreAdj": spec.oom_score_adj,
        **process_security(spec.security, uid=user.uid, host=host),
    }
    if spec.rlimits:
        process["rlimits"] = process_rlimits(spec.rlimits)
    if spec.terminal and spec.terminal_size is not None:
        process["consoleSize"] = {"height": spec.terminal_size.height, "width": spec.terminal_size.width}
    return process


def _environment(spec: ContainerSpec, user: ResolvedUser) -> list[str]:
    defaults = {"PATH": DEFAULT_PATH, "HOSTNAME": spec.hostname}
    if spec.terminal:
        defaults["TERM"] = "xterm"
    defaults["HOME"] = user.home
    given = {entry.partition("=")[0] for entry in spec.env}
    return [f"{name}={value}" for name, value in defaults.items() if name not in given] + list(spec.env)


def _linux(
    spec: ContainerSpec,
    *,
    host: HostFacts,
    cgroups_path: str,
    devices: Sequence[HostDevice],
    block_devices: BlockDevices,
) -> dict[str, object]:
    limits = oci_resources(
        spec.resources,
        block_devices,
        v2=host.cgroup_layout is CgroupLayout.V2,
        swap="memory_swap" in host.cgroups.names,
    )
    linux: dict[str, object] = {
        "cgroupsPath": cgroups_path,
        "resources": {"devices": device_rules(spec, devices), **limits},
        "maskedPaths": masked_paths(spec, host),
        "readonlyPaths": readonly_paths(spec),
    }
    if devices:
        linux["devices"] = device_nodes(devices)
    if sysctl := _sysctls(spec):
        linux["sysctl"] = sysctl
    if (seccomp := seccomp_filter(spec.security, host)) is not None:
        linux["seccomp"] = seccomp
    return linux


def _sysctls(spec: ContainerSpec) -> dict[str, str]:
    sysctls = dict(spec.sysctls)
    if spec.domainname and not spec.namespaces.host_uts:
        # The NIS domain name: the same effect as setdomainname(2), without needing support of the runtime.
        sysctls["kernel.domainname"] = spec.domainname
    return sysctls


def _annotations(spec: ContainerSpec) -> dict[str, str]:
    """The user's annotations. Those that steer the runtime itself are refused: crun would run hooks or skip seccomp."""
    reserved = [key for key in spec.annotations if key.startswith(RESERVED_ANNOTATIONS)]
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
