"""A small init as process 1: it forwards signals and reaps children (tini(1)), bound into the container read-only."""

from __future__ import annotations

import posixpath

from common.errors import FailedPrecondition
from executor_service.container import ContainerSpec
from executor_service.oci.host import HostFacts
from executor_service.oci.mounts import Mount

_IN_DEV = "/dev/init"
_WITHOUT_DEV = "/.slipway-init"  # when /dev is somebody else's, where no file shall appear


def init_args(spec: ContainerSpec) -> list[str]:
    """The words before the program's own; none without an init."""
    return [_target(spec), "--"] if spec.init else []


def init_mounts(spec: ContainerSpec, host: HostFacts) -> list[Mount]:
    """To be made after all others, so that none of them hides it. Raises FailedPrecondition when the node has none."""
    if not spec.init:
        return []
    if host.init is None:
        raise FailedPrecondition(
            "this node has no init for containers: install tini, or set host_config.init to false",
            reason="NO_INIT",
        )
    options = ["bind", "rprivate", "ro", "nosuid", "nodev"]
    return [{"destination": _target(spec), "type": "bind", "source": str(host.init), "options": options}]


def _target(spec: ContainerSpec) -> str:
    taken = any(posixpath.normpath(mount.target) == "/dev" for mount in spec.mounts)
    return _WITHOUT_DEV if taken else _IN_DEV
