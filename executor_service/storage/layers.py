"""Unpacked layers on this node: each once, shared by every image and container that holds it.

A layer is a directory `layers/<name>/` with the tree in `fs/`, its size in `layer.json` and, when it came as a tar,
what else that had in `tar.zst`. `<name>` is the hex of the layer's diff id, or `init-<hex>` for the skeleton between an
image and its containers. It appears by one rename of a tree that is on disk already, so whatever has its name is whole.
Who needs a layer holds it, in memory; the holders are the images and containers, which say so again at every start;
what nobody holds is collected.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from executor_service.storage.durable import private_directory, publish_tree, write_synced
from executor_service.storage.keyed_locks import KeyedLocks
from executor_service.storage.trash import Trash
from executor_service.threads import finish

TAR_RECORD = "tar.zst"  # in a staged directory, beside `fs`

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What `layer.json` says: `size` bytes of file content and `entries`, headers counted, as its tar had them, and
    `tar_size`, the bytes of that tar; None when it cannot be made again."""

    size: int = 0
    entries: int = 0
    tar_size: int | None = None

    @classmethod
    def read(cls, path: Path) -> LayerFacts:
        """Raises OSError, ValueError, KeyError, TypeError."""
        known = json.loads(path.read_bytes())
        tar_size = known.get("tar_size")
        return cls(
            size=int(known["size"]),
            entries=int(known.get("entries", 0)),  # older executors did not count them
            tar_size=tar_size if isinstance(tar_size, int) else None,
        )


class LayerStore:
    """Layers by name, counted by their holders. Use as an async context manager; `collect` once all holders spoke."""

    def __init__(self, root: Path, *, trash: Trash) -> None:
        self._layers = root / "layers"
        self._staging = root / "staging"
        self._trash = trash
        self._holders: dict[str, frozenset[str]] = {}
        self._holders_of_all: set[str] = set()
        self._known: dict[str, LayerFacts] = {}
        self._made = KeyedLocks()
        self._collecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await finish(self._open)
        self._trash.empty_soon()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end: layers stay, holders say so again at the next start."""

    def tree(self, name: str) -> Path:
        """The layer's root directory."""
        return self._layers / name / "fs"

    def size(self, name: str) -> int:
        """Bytes of file content in the layer, as its tar had them."""
        return self._known[name].size

    def sizes(self, names: Iterable[str]) -> tuple[int, ...]:
        return tuple(map(self.size, names))

    def entries(self, name: str) -> int:
        """Of its tar, headers counted; 0 when nobody counted them."""
        return self._known[name].entries

    def record(self, name: str) -> Path:
        """What `recorded_tar` needs besides the tree."""
        return self._layers / name / TAR_RECORD

    def tar_size(self, name: str) -> int | None:
        """Bytes of the tar it came as; None when it cannot be made again."""
        return self._known[name].tar_size

    def names(self) -> frozenset[str]:
        return frozenset(self._known)

    def hold(self, owner: str, names: Iterable[str]) -> None:
        """Keep `names` as long as `owner` holds them; they need not be here yet. Replaces what it held before."""
        self._holders[owner] = frozenset(names)

    def hold_all(self, owner: str) -> None:
        """Keep every layer: `owner` is known to hold some, but its record cannot be read."""
        _log.warning("unused layers are kept until this record is removed", owner=owner)
        self._holders_of_all.add(owner)

    def release(self, owner: str) -> None:
        self._holders.pop(owner, None)
        self._holders_of_all.discard(owner)

    @asynccontextmanager
    async def making(self, name: str) -> AsyncIterator[bool]:
        """Within the block the caller alone may make the layer `name`; yields whether it is missing."""
        if name in self._known:
            yield False
            return
        async with self._made.hold(name):
            yield name not in self._known

    @asynccontextmanager
    async def staged(self) -> AsyncIterator[Path]:
        """A fresh directory with an empty `fs` (mode 0755), deleted after the block unless it was published."""
        path = self._staging / secrets.token_hex(8)
        try:
            await finish(lambda: _make_stage(path))  # it is there even when this is cancelled
            yield path
        finally:
            await finish(lambda: self._trash.throw(path))
            self._trash.empty_soon()

    async def publish(self, staged: Path, name: str, facts: LayerFacts) -> None:
        """Give a staged tree its name. The caller holds `name`, and is within `making(name)`."""
        published = threading.Event()

        def publish() -> None:
            self._publish(staged, self._layers / name, facts)
            published.set()

        try:
            await finish(publish)
        finally:
            # Also when this is cancelled while the thread is at it: what nobody knows of, nobody collects.
            if published.is_set():
                self._known[name] = facts

    async def collect(self) -> None:
        """Drop every layer that nobody holds, unless somebody holds all. Deleting goes on in the background."""
        if self._holders_of_all:
            return
        async with self._collecting:
            held = frozenset[str]().union(*self._holders.values())
            unheld = [name for name in self._known if name not in held]
            for name in unheld:
                # Forgotten before it is gone: whoever wants it from here on makes it anew, under `making`.
                del self._known[name]
            for name in unheld:
                async with self._made.hold(name):
                    await self._drop(name)
        self._trash.empty_soon()

    async def _drop(self, name: str) -> None:
        if name in self._known:
            return  # made again meanwhile
        path = self._layers / name
        await finish(lambda: self._trash.throw(path))

    def _publish(self, staged: Path, path: Path, facts: LayerFacts) -> None:
        write_synced(staged / "layer.json", json.dumps(asdict(facts)).encode())
        self._trash.throw(path)  # what a collection that was cut short has left there
        publish_tree(staged, path)

    def _open(self) -> None:
        private_directory(self._layers)
        private_directory(self._staging)
        for leftover in self._staging.iterdir():
            self._trash.throw(leftover)
        for path in self._layers.iterdir():
            try:
                self._known[path.name] = LayerFacts.read(path / "layer.json")
            except (OSError, ValueError, KeyError, TypeError) as error:
                # Without its record nothing says that the tree is whole; the next load makes it again.
                _log.error("broken layer dropped", layer=path.name, error=str(error))
                self._trash.throw(path)


def layer_name(diff_id: str) -> str:
    """The name here of a layer with the diff id `sha256:<hex>`."""
    return diff_id.removeprefix("sha256:")


def _make_stage(path: Path) -> None:
    path.mkdir(mode=0o700)
    tree = path / "fs"
    tree.mkdir()
    tree.chmod(0o755)
