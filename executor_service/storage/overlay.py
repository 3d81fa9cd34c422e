"""Container root filesystems on overlayfs: `<root>/containers/<id>/` with `upper`, `work`, `merged` and a record.

The record names the layers below, so a container keeps its root when its image is removed. A directory appears by one
rename when it is whole, and is gone by one rename into the trash.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from common.errors import FailedPrecondition, Internal, InvalidArgument, NotFound
from executor_service.container import CONTAINER_ID
from executor_service.host_errors import host_errors
from executor_service.run import run
from executor_service.storage.durable import private_directory, sync_directory
from executor_service.storage.images import ImageStore
from executor_service.storage.init_layer import make_init_layer
from executor_service.storage.keyed_locks import KeyedLocks
from executor_service.storage.layers import LayerFacts, LayerStore, layer_name
from executor_service.storage.mapped_trees import MappedTrees
from executor_service.storage.overlay_mount import visible
from executor_service.storage.overlay_roots import OverlayRoots
from executor_service.storage.snapshot_record import SnapshotRecord, snapshot_from_json, snapshot_to_json
from executor_service.storage.snapshots import RootLayers, Snapshotter
from executor_service.storage.trash import Trash
from executor_service.threads import finish, to_the_end

_log = structlog.get_logger(__name__)

_USAGE_TIMEOUT = 60.0  # seconds
_RECORD = "snapshot.json"


@dataclass(slots=True)
class _Visits:
    """`keep`: whether the mount stays when the last visitor has gone."""

    keep: bool
    count: int = 0


class OverlaySnapshots:
    """`Snapshotter` on overlayfs; `roots` is where remapped ones are mounted. Use as an async context manager."""

    def __init__(
        self,
        root: Path,
        *,
        images: ImageStore,
        layers: LayerStore,
        trash: Trash,
        mapped: MappedTrees | None = None,
        roots: Path | None = None,
    ) -> None:
        self._containers = root / "containers"
        self._roots = OverlayRoots(self._containers, mapped=mapped, remapped=roots)
        self._staging = root / "staging"
        self._images = images
        self._layers = layers
        self._trash = trash
        self._records: dict[str, SnapshotRecord] = {}
        self._broken: set[str] = set()
        self._visits: dict[str, _Visits] = {}
        self._busy = KeyedLocks()

    async def __aenter__(self) -> Self:
        """Reads the records and holds their layers."""
        await finish(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Mounts stay: their containers outlive this process."""

    async def prepare(self, container_id: str, image_id: str) -> None:
        async with self._exclusive(container_id):
            if (before := self._known(container_id)) is not None:
                if before.image_id != image_id:
                    raise FailedPrecondition(
                        f"container {container_id}: its root was prepared from the image {before.image_id!r}, not "
                        f"{image_id!r}; remove it first",
                        resource_type="container",
                        resource_name=container_id,
                    )
                return
            layers = (await self._images.get(image_id)).layers if image_id else ()
            record = SnapshotRecord(image_id=image_id, layers=layers)
            self._layers.hold(container_id, record.names())
            try:
                with host_errors(f"container {container_id}: no writable layer can be made"):
                    await self._make_init_layer(record)
                    await finish(lambda: self._make(container_id, record))
            except BaseException:
                self._layers.release(container_id)
                raise
            self._records[container_id] = record

    async def mount(self, container_id: str, *, remapped: bool = False) -> Path:
        async with self._exclusive(container_id):
            record = self._known(container_id)
            if record is None:
                raise _not_prepared(container_id)
            with host_errors(f"container {container_id}: its root cannot be mounted"):
                unsafe = await finish(lambda: self._roots.mount(container_id, self._lower(record), remapped=remapped))
            if unsafe:
                raise FailedPrecondition(
                    f"{', '.join(unsafe)} of the image {record.image_id!r} must be real "
                    "directories, no symlinks and no files: a runtime would follow them to the host; change the image",
                    resource_type="image",
                    resource_name=record.image_id,
                    reason="UNSAFE_ROOT",
                )
            if (visits := self._visits.get(container_id)) is not None:
                visits.keep = True
        return self._roots.place(container_id, remapped=remapped)

    @asynccontextmanager
    async def visit(self, container_id: str, *, remapped: bool = False) -> AsyncIterator[Path]:
        async with self._exclusive(container_id):
            record = self._known(container_id)
            if record is None:
                raise _not_prepared(container_id)
            if (visits := self._visits.get(container_id)) is None:
                with host_errors(f"container {container_id}: its root cannot be mounted"):
                    fresh = await finish(
                        lambda: self._roots.mount_if_absent(container_id, self._lower(record), remapped=remapped)
                    )
                visits = self._visits[container_id] = _Visits(keep=not fresh)
            visits.count += 1
        try:
            yield self._roots.place(container_id, remapped=remapped)
        finally:
            await to_the_end(self._leave(container_id, visits))

    async def _leave(self, container_id: str, visits: _Visits) -> None:
        async with self._busy.hold(container_id):
            visits.count -= 1
            if visits.count:
                return
            if self._visits.get(container_id) is visits:
                del self._visits[container_id]
                if not visits.keep:
                    await finish(lambda: self._roots.unmount(container_id))

    def layers(self, container_id: str) -> RootLayers:
        record = self._known(container_id)
        if record is None:
            raise _not_prepared(container_id)
        return RootLayers(upper=self._containers / container_id / "upper", lower=visible(self._lower(record)))

    async def unmount(self, container_id: str) -> None:
        async with self._exclusive(container_id):
            if (visits := self._visits.get(container_id)) is not None:
                visits.keep = False
                return
            await finish(lambda: self._roots.unmount(container_id))

    async def remove(self, container_id: str) -> None:
        async with self._exclusive(container_id):
            # Visitors keep what they have open, and find out that it is gone.
            self._visits.pop(container_id, None)
            await finish(lambda: self._remove(container_id))
            self._records.pop(container_id, None)
            self._broken.discard(container_id)
            self._layers.release(container_id)
        self._trash.empty_soon()
        await self._layers.collect()

    async def image_trees(self, image_id: str, *, remapped: bool = False) -> Sequence[Path]:
        layers = (await self._images.get(image_id)).layers
        trees = [self._layers.tree(name) for name in dict.fromkeys(map(layer_name, reversed(layers)))]
        return self._roots.remapped_trees(trees) if remapped else trees

    async def list(self) -> set[str]:
        return {*self._records, *self._broken}

    async def disk_usage(self, container_id: str) -> int:
        _check_id(container_id)
        if container_id not in self._records:
            raise _not_prepared(container_id)
        upper = self._containers / container_id / "upper"
        done = await run(["du", "-sx", "--block-size=1", "--", str(upper)], timeout=_USAGE_TIMEOUT)
        # Files that vanish while du runs make its status 1; the sum it prints is as good as any.
        total = done.stdout.partition(b"\t")[0]
        if not total.isdigit():
            raise Internal(f"container {container_id}: its writable layer cannot be measured: {done.message}")
        return int(total)

    @asynccontextmanager
    async def _exclusive(self, container_id: str) -> AsyncIterator[None]:
        _check_id(container_id)
        async with self._busy.hold(container_id):
            yield

    def _known(self, container_id: str) -> SnapshotRecord | None:
        if container_id in self._broken:
            raise FailedPrecondition(
                f"container {container_id}: the record of its root filesystem is broken; remove the container",
                resource_type="container",
                resource_name=container_id,
                reason="BROKEN_SNAPSHOT",
            )
        return self._records.get(container_id)

    def _lower(self, record: SnapshotRecord) -> Sequence[Path]:
        return [self._layers.tree(name) for name in record.names()]

    async def _make_init_layer(self, record: SnapshotRecord) -> None:
        init, *image = record.names()
        async with self._layers.making(init) as missing:
            if missing:
                async with self._layers.staged() as staged:
                    lower = [self._layers.tree(name) for name in image]
                    await finish(lambda: make_init_layer(staged, lower))
                    await self._layers.publish(staged, init, LayerFacts())

    def _make(self, container_id: str, record: SnapshotRecord) -> None:
        staged = self._staging / secrets.token_hex(8)
        staged.mkdir(mode=0o700)
        try:
            for name, mode in (("upper", 0o755), ("work", 0o700), ("merged", 0o700)):
                (staged / name).mkdir()
                (staged / name).chmod(mode)
            descriptor = os.open(staged / _RECORD, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(snapshot_to_json(record))
                file.flush()
                staged.rename(self._containers / container_id)
                # One sync for all of it: a journal that has the file's data has the mkdirs and the rename before it. A
                # power cut in between leaves an empty record, which is a broken container nobody was promised.
                os.fsync(descriptor)
        except BaseException:
            self._trash.throw(staged)
            raise

    def _remove(self, container_id: str) -> None:
        home = self._containers / container_id
        self._roots.unmount(container_id)
        if self._trash.throw(home):
            sync_directory(self._containers)

    def _open(self) -> None:
        private_directory(self._containers)
        self._roots.open()
        for home in self._containers.iterdir():
            if not CONTAINER_ID.fullmatch(home.name):
                _log.warning("foreign entry among the containers left alone", path=str(home))
                continue
            try:
                record = snapshot_from_json((home / _RECORD).read_bytes())
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.error("broken root filesystem record", container=home.name, error=str(error))
                self._broken.add(home.name)
                self._layers.hold_all(home.name)
                continue
            self._records[home.name] = record
            self._layers.hold(home.name, record.names())


def _check_id(container_id: str) -> None:
    if not CONTAINER_ID.fullmatch(container_id):
        raise InvalidArgument(f"container id {container_id!r:.100}: it must be 64 characters of 0-9 and a-f")


def _not_prepared(container_id: str) -> NotFound:
    return NotFound(
        f"container {container_id}: it has no root filesystem on this node; create it first",
        resource_type="container",
        resource_name=container_id,
    )


_: type[Snapshotter] = OverlaySnapshots
