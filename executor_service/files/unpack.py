"""A tar archive into a directory of a container.

Each member's directory is resolved by one openat2(2) below the directory that was asked for (or in the container's
root, when that was), and the member is made by its name in the descriptor that came back: links are followed as far as
they stay inside, and none at a member's own name. A file is written under another name and moved into place, so whoever
reads it sees the old one or the new one. Blocks. Source: moby pkg/archive (`Untar`), tar(5).
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import FailedPrecondition, InvalidArgument
from executor_service.files.owners import AS_THEY_ARE, Owners
from executor_service.files.refusals import corrupt_archive
from executor_service.files.resolve import reopen
from executor_service.kernel import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    openat2,
)
from executor_service.storage.refusals import shown
from executor_service.storage.tar_reader import Entry, Kind, TarReader

_BILLION = 1_000_000_000
_MAX_TIMES = 100_000  # directories whose times are put back at the end
_RETRIES = 100  # of a resolution during which something was renamed (openat2(2), EAGAIN)
_DEVICES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackRules:
    """As `ArchiveTarget` of the protocol has them."""

    no_overwrite_dir_non_dir: bool = False
    copy_uid_gid: bool = False


class TreeUnpacker:
    """Unpacks one archive into the directory `target` (a descriptor); `whole` says that it is the container's root.
    `check` is called with every member and every piece, and stops the work by raising."""

    def __init__(
        self,
        target: int,
        *,
        whole: bool,
        rules: UnpackRules,
        check: Callable[[], None],
        owners: Owners = AS_THEY_ARE,
    ) -> None:
        self._owners = owners
        self._target = target
        self._resolve = RESOLVE_NO_MAGICLINKS | (RESOLVE_IN_ROOT if whole else RESOLVE_BENEATH)
        self._rules = rules
        self._check = check
        self._parent = -1
        self._parent_name: bytes | None = None
        self._times: list[tuple[bytes, int]] = []

    def unpack(self, reader: TarReader) -> None:
        """Of an archive that `check_archive` found good. Raises OSError, FailedPrecondition for what is in its way;
        what was unpacked until then stays."""
        try:
            for entry in reader:
                self._check()
                self._take(entry, reader)
            self._restore_times()
        finally:
            self._forget_parent()

    def _take(self, entry: Entry, reader: TarReader) -> None:
        parts = _parts(entry.name)
        if not parts:
            return  # the directory itself, which is the container's
        base = parts[-1]
        parent = self._directory(parts[:-1])
        self._make_way(parent, base, entry)
        match entry.kind:
            case Kind.FILE:
                self._write_file(parent, base, entry, reader)
            case Kind.DIRECTORY:
                self._make_directory(parent, base, entry)
                if len(self._times) < _MAX_TIMES:
                    self._times.append((b"/".join(parts), _time(entry)))
            case Kind.SYMLINK:
                os.symlink(entry.link, base, dir_fd=parent)
                os.chown(base, *self._owner(entry), dir_fd=parent, follow_symlinks=False)
                os.utime(base, ns=(_time(entry), _time(entry)), dir_fd=parent, follow_symlinks=False)
            case Kind.HARDLINK:
                self._link(parent, base, entry)
            case Kind.CHARACTER | Kind.BLOCK | Kind.FIFO:
                self._make_special(parent, base, entry)

    def _make_way(self, parent: int, base: bytes, entry: Entry) -> None:
        """Remove what the member replaces; a file that a file replaces stays until the new one is whole."""
        try:
            before = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_directory = stat.S_ISDIR(before.st_mode)
        if is_directory != (entry.kind is Kind.DIRECTORY) and self._rules.no_overwrite_dir_non_dir:
            old, new = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            raise FailedPrecondition(
                f"cannot overwrite {old} {shown(entry.name)} with {new}", reason="WOULD_REPLACE_DIRECTORY"
            )
        if is_directory and entry.kind is not Kind.DIRECTORY:
            self._forget_parent(keep=parent)
            _remove_tree(parent, base, entry)
        elif not is_directory and entry.kind is not Kind.FILE:
            os.unlink(base, dir_fd=parent)

    def _write_file(self, parent: int, base: bytes, entry: Entry, reader: TarReader) -> None:
        temporary = b".slipway-" + secrets.token_hex(8).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)
        try:
            try:
                for piece in reader.content():
                    self._check()
                    _write(descriptor, piece)
                self._dress(descriptor, entry)
            finally:
                os.close(descriptor)
            os.rename(temporary, base, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise

    def _make_directory(self, parent: int, base: bytes, entry: Entry) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            made = False
        else:
            made = True
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._dress(descriptor, entry, chown=made or self._rules.copy_uid_gid)
        finally:
            os.close(descriptor)

    def _make_special(self, parent: int, base: bytes, entry: Entry) -> None:
        if entry.kind is Kind.FIFO:
            os.mkfifo(base, 0o600, dir_fd=parent)
        else:
            device = os.makedev(entry.major, entry.minor)
            os.mknod(base, _DEVICES[entry.kind] | 0o600, device, dir_fd=parent)
        descriptor = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            # Never opened for real: a device or a pipe may do anything then.
            named = f"/proc/self/fd/{descriptor}"
            os.chown(named, *self._owner(entry))
            Path(named).chmod(entry.mode)
            os.utime(named, ns=(_time(entry), _time(entry)))
        finally:
            os.close(descriptor)

    def _link(self, parent: int, base: bytes, entry: Entry) -> None:
        source = _parts(entry.link)
        directory = self._open(b"/".join(source[:-1]) or b".")
        try:
            os.link(source[-1], base, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def _dress(self, descriptor: int, entry: Entry, *, chown: bool = True) -> None:
        """Owner first: changing it takes away set-id bits and capabilities."""
        if chown:
            os.fchown(descriptor, *self._owner(entry))
        os.fchmod(descriptor, entry.mode)
        for key, value in entry.xattrs.items():
            if key == b"security.capability" and entry.kind is Kind.FILE:
                kept = self._owners.capability_outside(value)
            elif key.startswith(b"user."):
                kept = value
            else:
                continue
            with suppress(OSError):  # not every file system keeps them, as Docker's does not insist
                os.setxattr(descriptor, key, kept)
        os.utime(descriptor, ns=(_time(entry), _time(entry)))

    def _owner(self, entry: Entry) -> tuple[int, int]:
        return self._owners.outside(*((entry.uid, entry.gid) if self._rules.copy_uid_gid else (0, 0)))

    def _directory(self, parts: Sequence[bytes]) -> int:
        """The descriptor of a member's directory, made where it is missing; kept for the next member."""
        name = b"/".join(parts)
        if name != self._parent_name:
            self._forget_parent()
            self._parent = self._open_or_make(parts)
            self._parent_name = name
        return self._parent

    def _open_or_make(self, parts: Sequence[bytes]) -> int:
        try:
            return self._open(b"/".join(parts) or b".")
        except FileNotFoundError:
            above = self._open_or_make(parts[:-1])
        try:
            with suppress(FileExistsError):
                os.mkdir(parts[-1], 0o700, dir_fd=above)
                made = os.open(parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                try:
                    os.fchmod(made, 0o755)
                finally:
                    os.close(made)
        finally:
            os.close(above)
        return self._open(b"/".join(parts))

    def _open(self, name: bytes) -> int:
        for _ in range(_RETRIES):
            try:
                return openat2(self._target, name, flags=os.O_PATH | os.O_DIRECTORY, resolve=self._resolve)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
        raise FailedPrecondition(f"{shown(name)}: the container renames directories all the time", reason="CHANGING")

    def _forget_parent(self, *, keep: int = -1) -> None:
        """The directory of the last member may be another by now; `keep` is closed by the next call."""
        if self._parent >= 0 and self._parent != keep:
            os.close(self._parent)
            self._parent = -1
        self._parent_name = None

    def _restore_times(self) -> None:
        for name, time in reversed(self._times):
            with suppress(OSError):
                path = self._open(name)
                try:
                    descriptor = reopen(path, os.O_RDONLY | os.O_DIRECTORY)
                    try:
                        os.utime(descriptor, ns=(time, time))
                    finally:
                        os.close(descriptor)
                finally:
                    os.close(path)


def check_archive(reader: TarReader, check: Callable[[], None]) -> None:
    """Raises InvalidArgument for an archive that is broken or cut off, or whose names leave its directory."""
    for entry in reader:
        check()
        _parts(entry.name)
        if entry.kind is Kind.HARDLINK and not _parts(entry.link):
            raise corrupt_archive(f"tar: {shown(entry.name)} is a hard link to the directory it is unpacked into")
    if not reader.ended:
        raise corrupt_archive("tar: it was cut off, its end mark is missing; send the whole archive")


def _parts(name: bytes) -> list[bytes]:
    """Components of a member's name, taken from the directory that is unpacked into."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise corrupt_archive(f"tar: the member {shown(name)} leaves its directory with '..'")
    return parts


def _remove_tree(parent: int, base: bytes, entry: Entry) -> None:
    try:
        shutil.rmtree(base, dir_fd=parent)
    except RecursionError as error:
        raise InvalidArgument(
            f"{shown(entry.name)} replaces a directory that is nested too deep to be removed", reason="TOO_DEEP"
        ) from error


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _time(entry: Entry) -> int:
    return entry.mtime[0] * _BILLION + entry.mtime[1]
