"""A container's root filesystem: the image's layers below, an init layer, and its own writable layer on top."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RootLayers:
    """Directories of this host: the container's writable layer, and what is below it, the topmost first."""

    upper: Path
    lower: Sequence[Path]


class Snapshotter(Protocol):
    """Writable root filesystems keyed by container id. Every method is idempotent."""

    async def prepare(self, container_id: str, image_id: str) -> None:
        """Make the writable layer (and Docker's init layer) on disk; mounts nothing. `image_id` empty: an empty root.
        Raises NotFound when the image is not here."""

    async def mount(self, container_id: str, *, remapped: bool = False) -> Path:
        """Mount the root and return its path; returns at once when it is mounted already. `remapped`: with the node's
        ids in the place of the container's. Raises NotFound when it was never prepared."""

    async def unmount(self, container_id: str) -> None:
        """Unmount (lazily as a last resort). Nothing mounted: nothing happens."""

    def visit(self, container_id: str, *, remapped: bool = False) -> AbstractAsyncContextManager[Path]:
        """The root, mounted while the block runs, and after it only if it was mounted by `mount` meanwhile or before:
        an `unmount` during a visit takes effect at its end, so there is never a second mount of the same layers.
        Raises NotFound when it was never prepared."""

    def layers(self, container_id: str) -> RootLayers:
        """What the root is made of. Raises NotFound when it was never prepared."""

    async def remove(self, container_id: str) -> None:
        """Unmount and delete the writable layer. Nothing there: nothing happens."""

    async def image_trees(self, image_id: str, *, remapped: bool = False) -> Sequence[Path]:
        """The directories of the image's layers, topmost first, at least one. Raises NotFound."""

    async def list(self) -> set[str]:
        """Ids of every container that has something here, mounted or not."""

    async def disk_usage(self, container_id: str) -> int:
        """Bytes of the writable layer."""
