"""All storage of one node, opened in the order its parts need each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import FailedPrecondition
from executor_service.storage.content import ContentLimits, ContentStore
from executor_service.storage.durable import private_directory
from executor_service.storage.image_caps import ImageCaps
from executor_service.storage.images import ImageStore
from executor_service.storage.layer_pull import LayerPuller, PullLimits
from executor_service.storage.layers import LayerStore
from executor_service.storage.local_images import ArchiveLimits, LocalImages
from executor_service.storage.mapped_trees import MappedTrees
from executor_service.storage.overlay import OverlaySnapshots
from executor_service.storage.snapshots import Snapshotter
from executor_service.storage.trash import Trash
from executor_service.storage.unpack import Unpacker, UnpackLimits
from executor_service.threads import finish


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLimits:
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)
    unpack: UnpackLimits = field(default_factory=UnpackLimits)
    content: ContentLimits = field(default_factory=ContentLimits)
    pull: PullLimits = field(default_factory=PullLimits)
    image: ImageCaps = field(default_factory=ImageCaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    images: ImageStore
    snapshots: Snapshotter
    trash: Trash


@asynccontextmanager
async def open_storage(
    root: Path,
    *,
    limits: StorageLimits | None = None,
    mapped: MappedTrees | None = None,
    roots: Path | None = None,
) -> AsyncIterator[Storage]:
    """Storage below `root` (made, mode 0700; one process at a time), with what an earlier crash left swept away.

    `mapped`: for containers with remapped users, whose roots are mounted in `roots`.
    `root` must be on a file system that overlayfs takes as its upper layer (ext4, xfs, btrfs, tmpfs).
    """
    await finish(lambda: private_directory(root))
    with _claimed(root):
        async with _opened(root, limits or StorageLimits(), mapped, roots) as storage:
            yield storage


@contextmanager
def _claimed(root: Path) -> Iterator[None]:
    """The kernel drops the lock with the process, however it ends."""
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedPrecondition(
                f"storage {str(root)!r}: another process uses it; stop that one or choose another directory"
            ) from None
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _opened(
    root: Path, limits: StorageLimits, mapped: MappedTrees | None, roots: Path | None
) -> AsyncIterator[Storage]:
    async with (
        Trash(root / "trash") as trash,
        LayerStore(root, trash=trash) as layers,
        Unpacker(limits=limits.unpack) as unpacker,
        ContentStore(root, limits=limits.content) as content,
        LocalImages(
            root,
            layers=layers,
            unpacker=unpacker,
            content=content,
            puller=LayerPuller(
                layers=layers, unpacker=unpacker, content=content, limits=limits.pull, caps=limits.image
            ),
            limits=limits.archive,
            caps=limits.image,
        ) as images,
        OverlaySnapshots(root, images=images, layers=layers, trash=trash, mapped=mapped, roots=roots) as snapshots,
    ):
        await layers.collect()
        yield Storage(images=images, snapshots=snapshots, trash=trash)
