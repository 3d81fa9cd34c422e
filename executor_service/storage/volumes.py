"""Volumes of the node: directories that outlive containers, `<root>/<name>/` with `_data` and a record.

`<root>` is ours alone (0700), `_data` is 0755 and root's: containers get it by a mount, so what is above it hinders
nobody. A volume appears by one rename when it is whole, and is gone by one rename into the trash. One with options of
the `local` driver has its file system mounted at `_data` from its first user to its last.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import structlog

from common.errors import InvalidArgument, NotFound, Violation
from executor_service.host_errors import host_errors
from executor_service.run import run
from executor_service.storage.durable import private_directory, sync_directory, write_synced
from executor_service.storage.host_namespace import HostNamespace
from executor_service.storage.keyed_locks import KeyedLocks
from executor_service.storage.trash import Trash
from executor_service.storage.volume_fill import copy_files, finish_fill, is_empty
from executor_service.storage.volume_mounts import mount_volume, refused_volume, unmount_below
from executor_service.threads import finish

_log = structlog.get_logger(__name__)

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,252}")
VOLUME_OPTIONS = ("type", "o", "device")
_FILE_SYSTEM = re.compile(r"[a-zA-Z0-9_.-]{1,32}")
_USAGE_TIMEOUT = 60.0  # seconds
_RECORD = "volume.json"
_DATA = "_data"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVolume:
    """`options`: `type`, `o` and `device` of mount(8); empty for a plain directory. `size` in bytes, 0 if not asked."""

    name: str
    mountpoint: Path
    options: Mapping[str, str]
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedVolume:
    """`made`: it was not there before."""

    volume: StoredVolume
    made: bool


class VolumeStore(Protocol):
    """Volumes by name. What was made survives SIGKILL and power loss. Every method raises InvalidArgument for what can
    be no name."""

    async def create(self, name: str, options: Mapping[str, str]) -> CreatedVolume:
        """Idempotent. Raises FailedPrecondition when it is there with other options."""

    async def remove(self, name: str) -> int:
        """Delete it and what is in it; returns the bytes it held. Nothing there: nothing happens. Raises
        FailedPrecondition while somebody holds it."""

    async def list(self, *, size: bool) -> list[StoredVolume]:
        """By name."""

    def exists(self, name: str) -> bool: ...

    async def hold(self, name: str, container_id: str) -> Path:
        """The directory of its files, mounted if need be, until `release`. Raises NotFound, FailedPrecondition."""

    async def release(self, container_id: str) -> None:
        """The container holds none of them any more."""

    async def reconcile(self, holders: Mapping[str, set[str]]) -> None:
        """Say who holds which, by volume, after a restart; what nobody holds is unmounted."""

    async def fill(self, name: str, source: int) -> None:
        """Copy the directory `source` (a descriptor) into the volume with its owner and mode, unless something is in
        it already."""


def option_violations(options: Mapping[str, str], field: str) -> list[Violation]:
    broken = [
        Violation(field=f"{field}[{key!a}]", description=f"must be one of {', '.join(VOLUME_OPTIONS)}")
        for key in options
        if key not in VOLUME_OPTIONS
    ]
    if options and not (options.get("type") and options.get("device")):
        broken.append(Violation(field=field, description="need both `type` and `device`, see mount(8)"))
    elif options and not _FILE_SYSTEM.fullmatch(options["type"]):
        broken.append(Violation(field=f"{field}['type']", description=f"{options['type']!a:.60} is no file system"))
    if any("\0" in value for value in options.values()):
        broken.append(Violation(field=field, description="must not hold NUL characters"))
    return broken


class LocalVolumes:
    """Use as an async context manager."""

    def __init__(self, root: Path, *, host: HostNamespace) -> None:
        self._host = host
        self._root = root
        self._staging = root / ".staging"
        self._trash = Trash(root / ".trash")
        self._options: dict[str, Mapping[str, str]] = {}
        self._broken: set[str] = set()
        self._holders: dict[str, set[str]] = {}
        self._busy = KeyedLocks()

    async def __aenter__(self) -> Self:
        """Reads the records, and ends what a crash cut off."""
        await finish(lambda: private_directory(self._root))
        await self._trash.__aenter__()
        await finish(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Mounts stay: their users outlive this process."""
        await self._trash.__aexit__(kind, error, trace)

    def exists(self, name: str) -> bool:
        return name in self._options

    async def create(self, name: str, options: Mapping[str, str]) -> CreatedVolume:
        _check_name(name)
        async with self._busy.hold(name):
            self._refuse_broken(name)
            known = self._options.get(name)
            if known is None:
                with host_errors(f"volume {name!r} cannot be made"):
                    await finish(lambda: self._make(name, options))
                self._options[name] = dict(options)
            elif dict(known) != dict(options):
                raise refused_volume(name, f"exists with other options: {dict(known)}", "VOLUME_DIFFERS")
        return CreatedVolume(volume=self._stored(name), made=known is None)

    async def remove(self, name: str) -> int:
        _check_name(name)
        async with self._busy.hold(name):
            if name not in self._options and name not in self._broken:
                return 0
            if holders := self._holders.get(name):
                raise refused_volume(name, f"is mounted in container {min(holders)!r}", "VOLUME_IN_USE")
            size = await self._size(name)
            await finish(lambda: self._discard(name))
            self._options.pop(name, None)
            self._broken.discard(name)
        self._trash.empty_soon()
        return size

    async def list(self, *, size: bool) -> list[StoredVolume]:
        return [self._stored(name, size=await self._size(name) if size else 0) for name in sorted(self._options)]

    async def hold(self, name: str, container_id: str) -> Path:
        _check_name(name)
        async with self._busy.hold(name):
            self._refuse_broken(name)
            if name not in self._options:
                raise NotFound(f"volume {name!r} is not on this node", resource_type="volume", resource_name=name)
            if self._options[name] and not self._holders.get(name):
                await finish(lambda: self._unmount(name))
                await mount_volume(name, self._data(name), self._options[name], host=self._host)
            self._holders.setdefault(name, set()).add(container_id)
        return self._data(name)

    async def release(self, container_id: str) -> None:
        for name in [name for name, holders in self._holders.items() if container_id in holders]:
            async with self._busy.hold(name):
                holders = self._holders.get(name, set())
                holders.discard(container_id)
                if not holders:
                    self._holders.pop(name, None)
                    if self._options.get(name):
                        await finish(partial(self._unmount, name))

    async def reconcile(self, holders: Mapping[str, set[str]]) -> None:
        self._holders = {name: set(ids) for name, ids in holders.items()}
        for name, options in self._options.items():
            if options and name not in self._holders:
                await finish(partial(self._unmount, name))

    async def fill(self, name: str, source: int) -> None:
        async with self._busy.hold(name):
            home = self._root / name
            # A file system of somebody else's is not for us to put things into.
            if self._options.get(name) is None or self._options[name] or not await finish(lambda: is_empty(home)):
                return
            with host_errors(f"volume {name!r} cannot be filled"):
                await copy_files(source, home)
                await finish(lambda: finish_fill(home))

    def _data(self, name: str) -> Path:
        return self._root / name / _DATA

    def _stored(self, name: str, *, size: int = 0) -> StoredVolume:
        return StoredVolume(name=name, mountpoint=self._data(name), options=self._options[name], size=size)

    def _refuse_broken(self, name: str) -> None:
        if name in self._broken:
            raise refused_volume(name, "has a record that cannot be read; remove the volume", "VOLUME_BROKEN")

    def _make(self, name: str, options: Mapping[str, str]) -> None:
        staged = self._staging / secrets.token_hex(8)
        staged.mkdir(mode=0o700)
        try:
            (staged / _DATA).mkdir()
            (staged / _DATA).chmod(0o755)
            write_synced(staged / _RECORD, json.dumps({"options": dict(options)}).encode())
            sync_directory(staged)
            staged.rename(self._root / name)
        except BaseException:
            self._trash.throw(staged)
            raise
        sync_directory(self._root)

    def _discard(self, name: str) -> None:
        self._unmount(name)
        if self._trash.throw(self._root / name):
            sync_directory(self._root)

    def _unmount(self, name: str) -> None:
        unmount_below(self._root / name)

    async def _size(self, name: str) -> int:
        """Bytes on the disk of the node: what is mounted there is not counted."""
        home = self._root / name
        try:
            done = await run(["du", "-sx", "--block-size=1", "--", str(home / _DATA)], timeout=_USAGE_TIMEOUT)
        except TimeoutError:
            return 0
        total = done.stdout.partition(b"\t")[0]
        return int(total) if total.isdigit() and not self._options.get(name) else 0

    def _open(self) -> None:
        private_directory(self._staging)
        for leftover in self._staging.iterdir():
            self._trash.throw(leftover)
        for home in self._root.iterdir():
            if not VOLUME_NAME.fullmatch(home.name):
                continue
            try:
                options = json.loads((home / _RECORD).read_bytes())["options"]
                self._options[home.name] = {str(key): str(value) for key, value in options.items()}
                finish_fill(home)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                _log.error("broken volume", volume=home.name, error=str(error))
                self._options.pop(home.name, None)
                self._broken.add(home.name)
        self._trash.empty_soon()


def has_volumes(root: Path) -> bool:
    """Blocks."""
    return root.is_dir() and any(VOLUME_NAME.fullmatch(home.name) for home in root.iterdir())


def _check_name(name: str) -> None:
    if not VOLUME_NAME.fullmatch(name):
        why = f"{name!a:.300} must be a letter or digit, then letters, digits, '_', '.' or '-'; 2 to 253 characters"
        raise InvalidArgument(violations=[Violation(field="name", description=why)])


_: type[VolumeStore] = LocalVolumes
