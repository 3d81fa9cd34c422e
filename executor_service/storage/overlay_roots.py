"""Where the roots of containers are mounted: in `merged` of their own directory, or, remapped, below another one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import FailedPrecondition
from executor_service.storage.durable import private_directory
from executor_service.storage.init_layer import unsafe_directories
from executor_service.storage.mapped_ids import as_mapped_root
from executor_service.storage.mapped_trees import MappedTrees, check_passable, let_pass
from executor_service.storage.overlay_mount import is_mounted, mount_overlay, unmount_all, visible


class OverlayRoots:
    """Everything here blocks. `open` comes first.

    `containers` has the directory of each; `remapped` is where remapped ones are mounted: their users must pass to
    there, and never to a writable layer, in which a program that is set-user-id to their root is one to the node's."""

    def __init__(self, containers: Path, *, mapped: MappedTrees | None, remapped: Path | None) -> None:
        self._containers = containers
        self._mapped = mapped
        self._remapped = remapped

    def open(self) -> None:
        """Raises FailedPrecondition when remapped users cannot pass to their roots."""
        if self._mapped is not None and self._remapped is not None:
            private_directory(self._remapped)
            let_pass(self._remapped, self._mapped.mapping)
            check_passable(self._remapped, self._mapped.mapping)
        elif self._remapped is not None and not self._remapped.is_dir():
            self._remapped = None  # nothing was ever remapped

    def place(self, container_id: str, *, remapped: bool) -> Path:
        if remapped and self._remapped is not None:
            return self._remapped / container_id
        return self._containers / container_id / "merged"

    def mount(self, container_id: str, lower: Sequence[Path], *, remapped: bool) -> Sequence[str]:
        """The unsafe directories; with any, nothing is left mounted that was not before. `lower`: the topmost first."""
        fresh = self.mount_if_absent(container_id, lower, remapped=remapped)
        unsafe = unsafe_directories(self.place(container_id, remapped=remapped))
        if unsafe and fresh:
            self.unmount(container_id)
        return unsafe

    def mount_if_absent(self, container_id: str, lower: Sequence[Path], *, remapped: bool) -> bool:
        """False when it was mounted already."""
        home = self._containers / container_id
        merged = self.place(container_id, remapped=remapped)
        if is_mounted(merged):
            return False
        if remapped:
            self._mount_remapped(merged, home, lower)
        else:
            mount_overlay(merged, lower=lower, upper=home / "upper", work=home / "work")
        return True

    def unmount(self, container_id: str) -> None:
        unmount_all(self.place(container_id, remapped=False))
        if self._remapped is not None:
            unmount_all(self._remapped / container_id)
            with suppress(FileNotFoundError):
                (self._remapped / container_id).rmdir()

    def remapped_trees(self, trees: Sequence[Path]) -> Sequence[Path]:
        """The same directories, with the node's ids. Raises FailedPrecondition."""
        mapped = self._remaps()
        return [mapped.at(tree) for tree in trees]

    def _mount_remapped(self, place: Path, home: Path, lower: Sequence[Path]) -> None:
        mapped = self._remaps()
        place.mkdir(mode=0o700, exist_ok=True)
        layers = [mapped.at(tree) for tree in visible(lower)]
        upper, work = mapped.at(home / "upper"), mapped.at(home / "work")
        # Overlayfs makes its own files as whoever mounted it, and the layer takes them from nobody but its owners.
        as_mapped_root(mapped.mapping, lambda: mount_overlay(place, lower=layers, upper=upper, work=work))

    def _remaps(self) -> MappedTrees:
        if self._mapped is None:
            raise FailedPrecondition(
                "this node does not remap the users of containers; set userns_remap of its executor",
                reason="NOT_REMAPPED",
            )
        return self._mapped
