"""A container's writable layer as the tar of an image's layer.

overlayfs keeps a 0:0 character device for what was deleted and an attribute on a directory that was replaced; a layer's
tar has empty files with reserved names for both. A file that was given such a name by hand is left out, as it would
hide another. Blocks. Source: OCI image spec "layer.md", whiteouts.
"""

from __future__ import annotations

import os

from executor_service.files.changes import is_opaque, is_whiteout
from executor_service.files.pack import TreePacker
from executor_service.storage import tar_writer
from executor_service.storage.tar_reader import Kind

_GONE = b".wh."
_REPLACED = b".wh..wh..opq"


class LayerPacker(TreePacker):
    """`pack` the descriptor of the writable layer as b""."""

    def _take(self, descriptor: int, name: bytes, *, parent_device: int | None) -> None:
        directory, slash, base = name.rpartition(b"/")
        if base.startswith(_GONE):
            return
        status = os.fstat(descriptor)
        if is_whiteout(status):
            self._mark(directory + slash + _GONE + base, status)
        else:
            super()._take(descriptor, name, parent_device=parent_device)

    def _take_directory(self, path: int, name: bytes, status: os.stat_result, parent_device: int | None) -> None:
        super()._take_directory(path, name, status, parent_device)
        if is_opaque(self._levels[-1].descriptor):
            self._mark(name + b"/" + _REPLACED if name else _REPLACED, status)

    def _mark(self, name: bytes, status: os.stat_result) -> None:
        self._sink(tar_writer.header(self._entry(status, name, Kind.FILE)))
