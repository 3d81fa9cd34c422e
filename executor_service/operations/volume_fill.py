"""Fill the empty volumes of a new container with what its image has in their places."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.container import ContainerSpec
from executor_service.mounts import MountType
from executor_service.node import Node
from executor_service.oci.open_in_root import open_in_root
from executor_service.threads import finish

Found = Sequence[tuple[str, int]]
"""A volume's name and a descriptor of the image's directory in its place."""


async def fill_volumes(node: Node, spec: ContainerSpec) -> None:
    """Raises InvalidArgument when the image has a file where a volume is to be."""
    if not any(mount.type is MountType.VOLUME for mount in spec.mounts):
        return
    rootfs = await node.seams.snapshots.mount(spec.id)
    try:
        with ExitStack() as opened:
            for name, source in await finish(lambda: _sources(spec, rootfs, opened)):
                await node.seams.volumes.fill(name, source)
    finally:
        await node.seams.snapshots.unmount(spec.id)


def _sources(spec: ContainerSpec, rootfs: Path, opened: ExitStack) -> Found:
    found: list[tuple[str, int]] = []
    broken: list[Violation] = []
    for index, (source, target, populate) in enumerate(_volumes(spec)):
        if not target:
            continue
        try:
            descriptor = open_in_root(rootfs, target, flags=os.O_PATH)
        except OSError:
            continue  # nothing is there to fill it with
        opened.callback(os.close, descriptor)
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            why = f"the volume {source!r} cannot be mounted over {target!a}, which is a file of the image"
            broken.append(Violation(field=f"spec.mounts[{index}].target", description=why))
        elif populate:
            found.append((source, descriptor))
    if broken:
        raise InvalidArgument(violations=broken)
    return found


def _volumes(spec: ContainerSpec) -> Iterator[tuple[str, str, bool]]:
    """Source, target and whether to fill; the target of what is no volume of the whole is empty."""
    for mount in spec.mounts:
        whole = mount.type is MountType.VOLUME and not mount.subpath
        yield mount.source, mount.target if whole else "", mount.populate
