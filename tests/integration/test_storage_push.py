"""Pushes out of the image store to targets that take their time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from executor_service.registry.source import Descriptor, ImageTarget, Presence, Read, Retry, unheard
from executor_service.storage import layer_push
from executor_service.storage.layer_progress import LayerPhase, LayerProgress
from executor_service.storage.node import open_storage
from tests.fixtures.images import BuiltImage, docker_archive, member, stream, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacks layers with their owners: needs root")


class Target:
    """Has nothing, or everything; takes blobs once `go` is set. `uploads`: how many wait, or are done."""

    def __init__(self) -> None:
        self.uploads = 0
        self.has = False
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

    async def find(self, digest: str) -> Presence:
        return Presence.EXISTS if self.has else Presence.MISSING

    async def upload(
        self,
        descriptor: Descriptor,
        read: Read,
        on_sent: Callable[[int], None] = lambda _: None,
        on_retry: Callable[[Retry], None] = unheard,
    ) -> None:
        self.uploads += 1
        if self.uploads == 3:
            self.begun.set()
        await self.go.wait()
        on_sent(len(await read(0, descriptor.size)))

    async def put_manifest(self, tag: str, media_type: str, content: bytes) -> None: ...


_: type[ImageTarget] = Target


async def test_a_registry_that_takes_layers_slowly_delays_no_push_to_another(tmp_path: Path) -> None:
    image = BuiltImage(layers=[tar([member(f"f{number}", b"x")]) for number in range(5)])
    slow, quick = Target(), Target()
    quick.go.set()
    async with open_storage(tmp_path) as storage, asyncio.timeout(60):
        await storage.images.load(stream(docker_archive(image)))
        waiting = asyncio.create_task(storage.images.push(slow, image.id, "1", report=lambda _: None))
        await slow.begun.wait()
        await storage.images.push(quick, image.id, "1", report=lambda _: None)
        assert quick.uploads == 6  # five layers and the config
        assert slow.uploads == 3
        slow.go.set()
        await waiting


async def test_what_layers_are_when_compressed_is_remembered_of_the_last_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_push, "_MOST_KNOWN", 3)
    image = BuiltImage(layers=[tar([member(f"f{number}", b"x")]) for number in range(5)])
    target, packed = Target(), list[str]()
    target.go.set()

    def watch(progress: LayerProgress) -> None:
        if progress.phase is LayerPhase.PACKING:
            packed.append(progress.digest)

    async with open_storage(tmp_path) as storage:
        [loaded] = await storage.images.load(stream(docker_archive(image)))
        for diff_id in [*loaded.layers, loaded.layers[2], loaded.layers[0]]:
            await storage.images._pusher.push(target, [diff_id], watch)  # type: ignore[attr-defined]  # no image has one
            target.has = True
        assert packed == [*loaded.layers, loaded.layers[0]]
