"""A container in a user namespace of its own: what the runtime is told of it, and what it leaves to us.

The namespace is there before the runtime runs, for the network namespace belongs to it. Source: OCI runtime-spec,
config-linux.md#user-namespace-mappings; crun and runc, tested.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from common.errors import Internal
from executor_service.oci.runtime import Bundle, BundleUsers
from executor_service.oci.runtimes import RuntimeKind
from executor_service.user_mapping import UserMapping
from executor_service.user_namespaces import owner_of

_STREAMS = (0, 1, 2)


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


def _in_namespace(
    config: Mapping[str, object], path: str, mapping: UserMapping, *, mapped: bool
) -> Mapping[str, object]:
    """`mapped`: say what the mapping is, too. crun needs not know, and would give the container whatever its streams
    are, the node's own /dev/null among them."""
    linux = config["linux"]
    if not isinstance(linux, dict):
        raise Internal("an OCI configuration without linux")
    linux = {**linux, "namespaces": [{"type": "user", "path": path}, *linux["namespaces"]]}
    if mapped:
        for key, first in (("uidMappings", mapping.first_uid), ("gidMappings", mapping.first_gid)):
            linux[key] = [{"containerID": 0, "hostID": first, "size": mapping.count}]
    return {**config, "linux": linux}
