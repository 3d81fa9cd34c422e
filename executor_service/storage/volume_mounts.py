"""The file systems of volumes with options of the `local` driver: mounted as mount(8) does, and unmounted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from common.errors import FailedPrecondition, Internal
from executor_service import kernel
from executor_service.run import run
from executor_service.storage.host_namespace import HostNamespace
from executor_service.storage.mount_tree import attach_tree, copy_tree, make_read_only, mounted_below
from executor_service.threads import finish

_TIMEOUT = 60.0  # seconds; a file server that is away takes long to be given up
_MAX_MOUNTS = 10_000
_FAILED = "VOLUME_MOUNT_FAILED"


async def mount_volume(name: str, data: Path, options: Mapping[str, str], *, host: HostNamespace) -> None:
    """`options`: `type`, `device` and perhaps `o`. Raises FailedPrecondition with what mount(8) said."""
    words = set(options.get("o", "").split(",")) - {""}
    if options["type"] == "none" and words & {"bind", "rbind"}:
        await _bind(name, data, options["device"], words, host=host)
        return
    argv = ["mount", "-t", options["type"], *(["-o", options["o"]] if options.get("o") else [])]
    argv += ["--", options["device"], str(data)]
    try:
        done = await run(argv, timeout=_TIMEOUT)
    except TimeoutError as error:
        why = f"cannot be mounted: {options['device']!a} did not answer in {_TIMEOUT:g} s"
        raise refused_volume(name, why, _FAILED) from error
    if done.returncode != 0:
        raise refused_volume(name, f"cannot be mounted: {done.message}", _FAILED)


async def _bind(name: str, data: Path, device: str, words: set[str], *, host: HostNamespace) -> None:
    """A directory of the node, which mount(8) would look for among the mounts of this process."""
    if foreign := words - {"bind", "rbind", "ro", "rw"}:
        raise refused_volume(name, f"cannot be mounted: bind goes with ro alone, not {min(foreign)!a}", _FAILED)
    with ExitStack() as opened:

        def copy() -> int:
            source = os.open(device, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, source)
            tree = copy_tree(source, recursive="rbind" in words)
            opened.callback(os.close, tree)
            return tree

        try:
            tree = await host.run(copy)
            if "ro" in words:
                await finish(lambda: make_read_only(tree, recursive=False))
            await finish(lambda: attach_tree(tree, data))
        except OSError as error:
            raise refused_volume(name, f"cannot be mounted: {device!a}: {error.strerror}", _FAILED) from error


def unmount_below(directory: Path) -> None:
    """All that is mounted below the directory; what is busy is detached. Blocks."""
    for _ in range(_MAX_MOUNTS):
        points = mounted_below(directory)
        if not points:
            return
        # The topmost: what is below a shared mount must not be unmounted by itself, see `detach_tree`.
        kernel.detach_tree(os.fsencode(min(points, key=lambda point: len(point.parts))))
    if left := mounted_below(directory):
        # Whoever deletes the directory next would delete what is mounted there.
        raise Internal(f"{left[0]} stays mounted; unmount it by hand")


def refused_volume(name: str, why: str, reason: str) -> FailedPrecondition:
    return FailedPrecondition(f"volume {name!r} {why}", resource_type="volume", resource_name=name, reason=reason)
