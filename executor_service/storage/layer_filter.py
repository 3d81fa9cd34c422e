"""The gate between a hostile layer and GNU tar: reads every entry, refuses what could reach outside, rewrites the rest.

It keeps the kind of every name the layer has made so far, so it knows, without asking the disk, whether a name would
pass through a symlink. Directories never change into anything else within a layer, nor anything else into a
directory: no tool that writes layers does that, and every escape by way of the unpacker's own state needs it.

Whiteouts become what overlayfs understands: a 0:0 character device for a `.wh.name`, and `trusted.overlay.opaque` on a
directory (returned in `Filtered.opaque` and set by the unpacker, because the mark may come after the directory's
entry). Overlay's own attributes never pass: `trusted.overlay.redirect` would let an image name other directories.
Sources: OCI image spec "layer.md" (whiteouts), kernel Documentation/filesystems/overlayfs.rst, moby pkg/archive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from executor_service.storage import tar_writer
from executor_service.storage.refusals import corrupt_image, shown
from executor_service.storage.tar_reader import ByteSource, Entry, Kind, TarReader

_WHITEOUT = b".wh."
_WHITEOUT_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_MAX_PATH = 4095  # bytes, PATH_MAX without its NUL
_MAX_COMPONENT = 255  # bytes, NAME_MAX
_NOT_PLAIN = (b"", b"/", b".")
_CAPABILITY = b"security.capability"
_CAPABILITY_SIZES = frozenset({12, 20, 24})  # struct vfs_cap_data of revisions 1, 2 and 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """What passed: `size` bytes of file content, `entries` (headers counted), the directories to be made opaque (b"" is
    the layer's root), each directory's time (seconds, nanoseconds), whether the archive had its end mark, and whether a
    file came more than once, so that the content of the first is gone."""

    size: int
    entries: int
    opaque: frozenset[bytes]
    times: Mapping[bytes, tuple[int, int]]
    ended: bool
    overwritten: bool = False


Count = Callable[[int, int], None]


def uncounted(size: int, entries: int) -> None:
    """For a layer that only has to keep to the limits of every layer."""


class LayerFilter:
    """Filters one layer from `source` to `sink`, which is handed pieces of a tar stream. `content`, given the name and
    size of a file that passes, is entered while its content is read. `count`, given the bytes and entries of what has
    passed and of what is to pass next, stops the work by raising."""

    def __init__(
        self,
        source: ByteSource,
        sink: Callable[[bytes], object],
        *,
        max_entries: int,
        content: Callable[[bytes, int], AbstractContextManager[None]],
        count: Count = uncounted,
    ) -> None:
        self._reader = TarReader(source, max_entries=max_entries)
        self._sink = sink
        self._content = content
        self._count = count
        self._overwritten = False
        self._kinds: dict[bytes, Kind] = {b"": Kind.DIRECTORY}
        self._symlinks: dict[bytes, bytes] = {}
        self._whiteouts: dict[bytes, Entry] = {}
        self._opaque: set[bytes] = set()
        self._times: dict[bytes, tuple[int, int]] = {}
        self._size = 0

    def run(self) -> Filtered:
        """Blocks until the archive's end. Raises InvalidArgument (CORRUPT_IMAGE) at the first refused entry; what was
        handed to `sink` until then is to be thrown away."""
        for entry in self._reader:
            name = _clean(entry.name, entry.name)
            self._take(entry if name == entry.name else replace(entry, name=name))
        self._write_whiteouts()
        self._sink(tar_writer.END)
        return Filtered(
            size=self._size,
            entries=self._reader.entries,
            opaque=frozenset(self._opaque),
            times=self._times,
            ended=self._reader.ended,
            overwritten=self._overwritten,
        )

    def _take(self, entry: Entry) -> None:
        if not entry.name:
            # The layer's root: a container's `/` belongs to its own writable layer, as with Docker.
            if entry.kind is not Kind.DIRECTORY:
                raise corrupt_image("layer: its root is not a directory")
            return
        directory, _, base = entry.name.rpartition(b"/")
        if _WHITEOUT in entry.name and self._take_whiteout(entry, directory, base):
            return
        self._make_parents(entry)
        if entry.kind is Kind.HARDLINK:
            entry = self._checked_hardlink(entry)
        if self._replaces(entry):
            self._write(entry)

    def _take_whiteout(self, entry: Entry, directory: bytes, base: bytes) -> bool:
        """True when `entry` was a mark and not a thing."""
        parents = directory.split(b"/")
        if any(parent.startswith(_WHITEOUT_META) for parent in parents):
            return True  # AUFS kept its own bookkeeping in such directories
        if any(parent.startswith(_WHITEOUT) for parent in parents):
            raise corrupt_image(f"layer: {shown(entry.name)} lies below a whiteout")
        if not base.startswith(_WHITEOUT):
            return False
        if base.startswith(_WHITEOUT_META) and base != _OPAQUE:
            return True
        if base != _OPAQUE and base[len(_WHITEOUT) :] in (b"", b".", b".."):
            raise corrupt_image(f"layer: the whiteout {shown(entry.name)} names nothing that could be hidden")
        self._make_parents(entry)
        if base == _OPAQUE:
            self._opaque.add(directory)
        else:
            hidden = base[len(_WHITEOUT) :]
            self._whiteouts[directory + b"/" + hidden if directory else hidden] = entry
        return True

    def _make_parents(self, entry: Entry) -> None:
        parent = entry.name.rpartition(b"/")[0]
        if self._kinds.get(parent) is Kind.DIRECTORY:
            return
        parts = parent.split(b"/")
        for depth in range(1, len(parts) + 1):
            name = b"/".join(parts[:depth])
            kind = self._kinds.get(name)
            if kind is None:
                self._write(Entry(name=name, kind=Kind.DIRECTORY, mode=0o755, mtime=entry.mtime))
            elif kind is not Kind.DIRECTORY:
                raise corrupt_image(
                    f"layer: {shown(entry.name)} passes through {shown(name)}, which is a {kind.name.lower()}"
                )

    def _checked_hardlink(self, entry: Entry) -> Entry:
        target = _clean(entry.link, entry.name)
        kind = self._kinds.get(target)
        if kind is None:
            raise corrupt_image(
                f"layer: {shown(entry.name)} is a hard link to {shown(entry.link)}, which this layer has not made yet"
            )
        if kind is Kind.DIRECTORY or target == entry.name:
            raise corrupt_image(
                f"layer: {shown(entry.name)} is a hard link to {shown(entry.link)}, not to another file"
            )
        return replace(entry, link=target)

    def _replaces(self, entry: Entry) -> bool:
        """False when the entry says again what is there already; raises when it may not take its place."""
        before = self._kinds.get(entry.name)
        if before is None or (before is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY):
            return True
        if before is Kind.SYMLINK and entry.kind is Kind.SYMLINK and self._symlinks.get(entry.name) == entry.link:
            return False
        special = (Kind.DIRECTORY, Kind.SYMLINK)
        if before in special or entry.kind in special:
            raise corrupt_image(
                f"layer: {shown(entry.name)} is a {before.name.lower()} and later a {entry.kind.name.lower()}; "
                "one layer can hold only one of them"
            )
        self._overwritten = True
        return True

    def _write(self, entry: Entry) -> None:
        if entry.kind is Kind.SYMLINK and not 0 < len(entry.link) <= _MAX_PATH:
            raise corrupt_image(f"layer: the symlink {shown(entry.name)} has a target of {len(entry.link)} bytes")
        if entry.kind is Kind.SYMLINK:
            self._symlinks[entry.name] = entry.link
        elif entry.kind is Kind.DIRECTORY:
            self._times[entry.name] = entry.mtime
        # A hard link to a symlink is a symlink: nothing may pass through it either.
        self._kinds[entry.name] = self._kinds[entry.link] if entry.kind is Kind.HARDLINK else entry.kind
        if entry.kind is Kind.FILE:
            self._size += entry.size
        self._count(self._size, self._reader.entries)
        self._sink(tar_writer.header(replace(entry, xattrs=_kept_attributes(entry)) if entry.xattrs else entry))
        if entry.kind is Kind.FILE:
            with self._content(entry.name, entry.size):
                for piece in self._reader.content():
                    self._sink(piece)
            self._sink(tar_writer.padding(entry.size))

    def _write_whiteouts(self) -> None:
        """Last, because a whiteout hides only what lower layers have: what this layer makes itself, wins over it."""
        for name, mark in self._whiteouts.items():
            kind = self._kinds.get(name)
            if kind is None:
                self._write(Entry(name=name, kind=Kind.CHARACTER, mtime=mark.mtime))
            elif kind is Kind.DIRECTORY:
                self._opaque.add(name)


def _clean(name: bytes, entry: bytes) -> bytes:
    """`name` without `.` and empty components; b"" is the root."""
    if name[:1] not in _NOT_PLAIN and b"//" not in name and b"/." not in name and len(name) <= _MAX_COMPONENT:
        return name.rstrip(b"/")  # nearly every name: nothing below could find fault with it
    if name.startswith(b"/"):
        raise corrupt_image(f"layer: the entry {shown(entry)} uses the absolute name {shown(name)}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise corrupt_image(f"layer: the entry {shown(entry)} uses the name {shown(name)}, which leaves its directory")
    if not parts and not name:
        raise corrupt_image(f"layer: the entry {shown(entry)} has an empty name")
    if any(len(part) > _MAX_COMPONENT for part in parts):
        raise corrupt_image(f"layer: {shown(entry)} has a component longer than {_MAX_COMPONENT} bytes")
    cleaned = b"/".join(parts)
    if len(cleaned) > _MAX_PATH:
        raise corrupt_image(f"layer: a name of {len(cleaned)} bytes; the limit is {_MAX_PATH}")
    return cleaned


def _kept_attributes(entry: Entry) -> Mapping[bytes, bytes]:
    """File capabilities and the user's own; everything else belongs to the kernel or to this host's policy."""
    if entry.kind not in (Kind.FILE, Kind.DIRECTORY):
        return {}
    return {key: value for key, value in entry.xattrs.items() if _is_kept(entry, key, value)}


def _is_kept(entry: Entry, key: bytes, value: bytes) -> bool:
    if key == _CAPABILITY:
        if entry.kind is Kind.FILE and len(value) not in _CAPABILITY_SIZES:
            raise corrupt_image(f"layer: {shown(entry.name)} has a {len(value)} byte {_CAPABILITY.decode()} attribute")
        return entry.kind is Kind.FILE
    return key.startswith(b"user.") and not key.startswith(b"user.overlay.")
