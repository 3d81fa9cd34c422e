"""Pushes out of the image store to targets that take their time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from executor_service.registry.source import Descriptor, ImageTarget, Presence, Read, Retry, unheard
from executor_service.storage.node import open_storage
from tests.fixtures.images import BuiltImage, docker_archive, member, stream, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacks layers with their owners: needs root")


class Target:
    """Has nothing; takes blobs once `go` is set. `uploads`: how many wait, or are done."""

    def __init__(self) -> None:
        self.uploads = 0
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

    async def find(self, digest: str) -> Presence:
        return Presence.MISSING

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
    async with open_storage(tmp_path) as storage, asyncio.timeout(30):
        await storage.images.load(stream(docker_archive(image)))
        waiting = asyncio.create_task(storage.images.push(slow, image.id, "1", report=lambda _: None))
        await slow.begun.wait()
        await storage.images.push(quick, image.id, "1", report=lambda _: None)
        assert quick.uploads == 6  # five layers and the config
        assert slow.uploads == 3
        slow.go.set()
        await waiting
