"""Pulls, creates and removals of images that share layers, all at once: a collection takes nothing that is needed."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections import Counter
from pathlib import Path

import pytest

from executor_service.registry.source import Platform
from executor_service.storage.node import Storage, open_storage
from tests.fixtures.image_source import MemorySource
from tests.fixtures.images import BuiltImage, directory, member, tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.timeout(240),
]

WORKERS, ROUNDS = 5, 12
LINUX = Platform(os="linux", architecture="")


def layer(name: str) -> bytes:
    return tar([directory("data"), member(f"data/{name}", random.Random(name).randbytes(200_000))])


SHARED = [layer("below"), layer("above")]


async def live(storage: Storage, number: int, sent: Counter[str]) -> None:
    """Pull an image of one's own, run something on it, and leave; again and again."""
    built = BuiltImage(layers=[*SHARED, layer(f"own{number}")])
    for _ in range(ROUNDS):
        source = MemorySource(built, chunk=1 << 12)
        pulled = await storage.images.pull(source, "1", LINUX, name="", report=lambda _: None)
        sent.update(source.sent)
        assert pulled.image.id == built.id
        container = secrets.token_hex(32)
        if number % 2:
            # The image goes while its container is made: either there is none, or it is whole.
            _, refused = await asyncio.gather(
                storage.images.remove(built.id), storage.snapshots.prepare(container, built.id), return_exceptions=True
            )
            if refused is not None:
                continue
        else:
            await storage.snapshots.prepare(container, built.id)
            await storage.images.remove(built.id)
        root = await storage.snapshots.mount(container)
        for name in ("below", "above", f"own{number}"):
            assert (root / "data" / name).read_bytes() == random.Random(name).randbytes(200_000)
        await storage.snapshots.remove(container)


async def test_nothing_that_is_needed_is_collected(tmp_path: Path) -> None:
    root = tmp_path / "storage"
    sent: Counter[str] = Counter()
    async with open_storage(root) as storage:
        await asyncio.gather(*(live(storage, number, sent) for number in range(WORKERS)))
        await storage.trash.emptied()
        assert await storage.images.list() == []
        assert list((root / "layers").iterdir()) == []
        assert [path for below in ("blobs", "partial") for path in (root / "content" / below).iterdir()] == []
    # They did share: far fewer than one download for each pull.
    size = MemorySource(BuiltImage(layers=SHARED)).layers[0].size
    assert 1 <= sent[MemorySource(BuiltImage(layers=SHARED)).layers[0].digest] / size < WORKERS * ROUNDS * 0.8
