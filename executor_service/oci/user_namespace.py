"""A container in a user namespace of its own: what the runtime is told of it, and what it leaves to us.

The namespace is there before the runtime runs, for the network namespace belongs to it. Source: OCI runtime-spec,
config-linux.md#user-namespace-mappings; crun and runc, tested.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from common.errors import FailedPrecondition, Internal
from executor_service.oci.runtime import Bundle, BundleUsers
from executor_service.oci.runtimes import RuntimeKind
from executor_service.user_mapping import UserMapping, mapping_of
from executor_service.user_namespaces import owner_of

_libc = ctypes.CDLL(None, use_errno=True)

_STREAMS = (0, 1, 2)
_DOMAINNAME = "kernel.domainname"
_CLONE_NEWUTS = 0x04000000


@contextmanager
def config_for(bundle: Bundle, kind: RuntimeKind) -> Iterator[Mapping[str, object]]:
    """The bundle's configuration, good while the block runs. Raises OSError."""
    if (users := bundle.users) is None:
        yield bundle.config
        return
    with owner_of(users.of) as descriptor:
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        yield _in_namespace(bundle.config, path, users.mapping, mapped=kind is not RuntimeKind.CRUN)


def give_streams(users: BundleUsers, pid: int) -> None:
    """Let the container's process open its own pipes again (/dev/stdout)."""
    for number in _STREAMS:
        path = f"/proc/{pid}/fd/{number}"
        with suppress(FileNotFoundError):  # it has ended
            if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 - a link of /proc
                os.chown(path, users.uid, users.gid)


def check_users(bundle: Bundle, pid: int) -> None:
    """The namespace may be that of a sandbox made for others, or before the setting changed. Raises FailedPrecondition
    unless the process has the users that its files are mapped for."""
    if bundle.users is not None and mapping_of(pid) != bundle.users.mapping:
        raise FailedPrecondition(
            f"container {bundle.container_id!r}: those whose namespaces it shares have other users on the node than it "
            "would have; stop them all, and start them again",
            resource_type="container",
            resource_name=bundle.container_id,
            reason="OTHER_USERS",
        )


def domainname(bundle: Bundle) -> str:
    """The NIS domain name to be set by `set_domainname`; empty: none, or the runtime sets it."""
    linux = bundle.config["linux"] if bundle.users is not None else None
    return str(linux.get("sysctl", {}).get(_DOMAINNAME, "")) if isinstance(linux, dict) else ""


def set_domainname(pid: int, name: str) -> None:
    """In the UTS namespace of the process: this parameter of the kernel's is root's of the node to write, the system
    call root's of the container. Leaves the calling thread in there; raises OSError."""
    namespace = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = name.encode()
        if _libc.setns(namespace, _CLONE_NEWUTS) != 0 or _libc.setdomainname(content, len(content)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "the domain name")
    finally:
        os.close(namespace)


def _in_namespace(
    config: Mapping[str, object], path: str, mapping: UserMapping, *, mapped: bool
) -> Mapping[str, object]:
    """`mapped`: say what the mapping is, too. crun needs not know, and would give the container whatever its streams
    are, the node's own /dev/null among them."""
    linux = config["linux"]
    if not isinstance(linux, dict):
        raise Internal("an OCI configuration without linux")
    linux = {**linux, "namespaces": [{"type": "user", "path": path}, *linux["namespaces"]]}
    if _DOMAINNAME in linux.get("sysctl", {}):
        linux["sysctl"] = {name: value for name, value in linux["sysctl"].items() if name != _DOMAINNAME}
    if mapped:
        for key, first in (("uidMappings", mapping.first_uid), ("gidMappings", mapping.first_gid)):
            linux[key] = [{"containerID": 0, "hostID": first, "size": mapping.count}]
    return {**config, "linux": linux}
