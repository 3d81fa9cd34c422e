"""What the executor itself demands of a container's privileges and surroundings, whoever asks. Pure; fields as in
`slipway.executor.v1.ContainerSpec`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from common.seccomp_profile import parse_profile
from executor_service.cdi.specification import DEVICE_NAME, KIND
from executor_service.container import CONTAINER_ID, ContainerSpec, NamespaceMode, NetworkMode, Seccomp
from executor_service.oci.capabilities import CAPABILITIES

_Rules = Iterator[tuple[str, str]]

_SYSCTL = re.compile(r"[a-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_RLIMIT_NAMES = """
AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK
"""
_RLIMITS = frozenset(f"RLIMIT_{name}" for name in _RLIMIT_NAMES.split())
_PERMISSIONS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")
_PROFILE_NAME = re.compile(r"[!-~]{1,255}")
_CDI_DEVICE = re.compile(f"{KIND}={DEVICE_NAME}")
_MAX_MINOR = 2**20 - 1  # MINORBITS, linux/kdev_t.h
_MAX_MAJOR = 2**12 - 1
_MAX_PATH = 4095  # bytes, PATH_MAX without its NUL


def security_rules(spec: ContainerSpec) -> _Rules:
    """(field, sentence) of every broken rule."""
    yield from _security(spec)
    yield from _namespaces(spec)
    yield from _sysctls(spec)
    yield from _limits(spec)
    yield from _devices(spec)


def _security(spec: ContainerSpec) -> _Rules:
    security = spec.security
    for index, name in enumerate(security.capabilities):
        if name not in CAPABILITIES:
            yield f"capabilities[{index}]", f"{name[:64]!a} is not a capability of capabilities(7)"
    if (security.seccomp is Seccomp.PROFILE) != bool(security.seccomp_profile):
        yield "seccomp_profile", "must be given exactly when the mode says so"
    elif security.seccomp_profile:
        try:
            parse_profile(security.seccomp_profile)
        except ValueError as error:
            yield "seccomp_profile", str(error)
    if security.apparmor_profile and not _PROFILE_NAME.fullmatch(security.apparmor_profile):
        yield "apparmor_profile", f"{security.apparmor_profile[:64]!a} must be one printable word"
    for field, paths in (("masked_paths", security.masked_paths), ("readonly_paths", security.readonly_paths)):
        for index, path in enumerate(paths or ()):
            if not _is_path(path):
                yield f"{field}.paths[{index}]", f"{path[:64]!a} must be an absolute path, plainly written"
    for index, group in enumerate(spec.group_add):
        if not group or not group.isprintable() or ":" in group:
            yield f"group_add[{index}]", f"{group[:64]!a} must be the name or number of a group"


def _namespaces(spec: ContainerSpec) -> _Rules:
    wanted = spec.namespaces
    for kind, mode, other in (("ipc", wanted.ipc, wanted.ipc_container), ("pid", wanted.pid, wanted.pid_container)):
        field = f"{kind}_container"
        if (mode is NamespaceMode.CONTAINER) != bool(other):
            yield field, f"must be given exactly when {kind}_mode is that of another container"
        elif other and not CONTAINER_ID.fullmatch(other):
            yield field, f"{other[:80]!a} must be 64 lower-case hexadecimal characters"
        elif other == spec.id and other:
            yield field, "a container cannot join its own namespace"
    if spec.remapped:
        yield from _remapped(spec)
    if wanted.pid in (NamespaceMode.SHAREABLE, NamespaceMode.NONE):
        yield "pid_mode", f"{wanted.pid.value!r} is for IPC namespaces only"
    if spec.init and wanted.pid is not NamespaceMode.PRIVATE:
        yield "init", "needs a process namespace of the container's own"


def _remapped(spec: ContainerSpec) -> _Rules:
    """With users of its own nothing of the node's can be shared, for root of the container is nobody there."""
    if spec.node_users:
        yield "node_users", "contradicts remapped"
    wanted, why = spec.namespaces, "cannot be with remapped users; the container needs the node's own"
    for field, asked in (
        ("privileged", spec.security.privileged),
        ("writable_cgroups", spec.security.writable_cgroups),
        ("network_mode", spec.network_mode is NetworkMode.HOST),
        ("pid_mode", wanted.pid is NamespaceMode.HOST),
        ("ipc_mode", wanted.ipc is NamespaceMode.HOST),
    ):
        if asked:
            yield field, why
    joined = {each for each in (spec.network_container, wanted.ipc_container, wanted.pid_container) if each}
    if len(joined) > 1:
        yield "pid_container", "must be the same as ipc_container and network_container with remapped users"


def _sysctls(spec: ContainerSpec) -> _Rules:
    for name, value in spec.sysctls.items():
        field = f"sysctls[{name[:64]!a}]"
        if not _SYSCTL.fullmatch(name):
            yield field, "must be words of letters, digits, '_' and '-', joined by '.'"
        elif (why := _foreign(name, spec)) is not None:
            yield field, why
        if not value.replace("\t", " ").isprintable():
            yield field, "the value must be one printable line"


def _foreign(name: str, spec: ContainerSpec) -> str | None:
    """Why the parameter would be the node's or another container's."""
    wanted = spec.namespaces
    if name.startswith("net."):
        return "the network is the node's" if spec.network_mode is NetworkMode.HOST else None
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        shared = wanted.ipc in (NamespaceMode.HOST, NamespaceMode.CONTAINER)
        return "the IPC namespace is not the container's own" if shared else None
    if name == "kernel.domainname":
        return "the host name is the node's" if wanted.host_uts else None
    return "is no parameter of a container's own namespaces"


def _limits(spec: ContainerSpec) -> _Rules:
    for index, limit in enumerate(spec.rlimits):
        if limit.name not in _RLIMITS:
            yield f"rlimits[{index}].name", f"{limit.name[:64]!a} is no limit of setrlimit(2)"
        if limit.soft < -1 or limit.hard < -1:
            yield f"rlimits[{index}]", "a limit is at least 0, or -1 for unlimited"
        elif limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            yield f"rlimits[{index}].soft", f"{limit.soft} must not be above the hard limit, {limit.hard}"


def _devices(spec: ContainerSpec) -> _Rules:
    targets = [posixpath.normpath(mount.target) for mount in spec.mounts]
    for index, device in enumerate(spec.devices):
        field = f"devices[{index}]"
        for name, path in (("source", device.source), ("target", device.target)):
            if not _is_path(path):
                yield f"{field}.{name}", f"{path[:64]!a} must be an absolute path, plainly written"
        if not _PERMISSIONS.fullmatch(device.permissions):
            yield f"{field}.permissions", f"{device.permissions[:64]!a} must be of r, w and m, each once"
        if any(device.target == target or device.target.startswith(f"{target}/") for target in targets):
            yield (
                f"{field}.target",
                f"{device.target[:64]!a} lies on a mount; a device there would be made in its source",
            )
    for index, name in enumerate(spec.cdi_devices):
        if not _CDI_DEVICE.fullmatch(name):
            yield f"cdi_devices[{index}]", f"{name[:64]!a} must be the full name of a CDI device, vendor/class=name"
    for index, rule in enumerate(spec.device_rules):
        field = f"device_rules[{index}]"
        if rule.type not in ("a", "b", "c"):
            yield f"{field}.type", f"{rule.type[:64]!a} must be a, b or c"
        if not -1 <= rule.major <= _MAX_MAJOR or not -1 <= rule.minor <= _MAX_MINOR:
            yield field, f"numbers go to {_MAX_MAJOR} and {_MAX_MINOR}; -1 means all"
        if not _PERMISSIONS.fullmatch(rule.permissions):
            yield f"{field}.permissions", f"{rule.permissions[:64]!a} must be of r, w and m, each once"


def _is_path(path: str) -> bool:
    plain = path.startswith("/") and posixpath.normpath(path) == path and not path.startswith("//")
    return plain and path.isprintable() and len(path.encode(errors="surrogateescape")) <= _MAX_PATH
