"""Packed layers as they are read: every packing that is known, and the memory it takes, whatever the layer's size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from common.errors import InvalidArgument
from executor_service.storage.streams import Window, decompressed

_MOST = 5 << 20  # bytes of buffers for one stream
_CONTENT = random.Random(1).randbytes(700_000) + bytes(300_000)
_SKIPPABLE = b"\x5a\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip in members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "zstd": zstandard.compress,
    "zstd after a frame to be skipped": lambda data: _SKIPPABLE + zstandard.compress(data),
    "zstd in frames": lambda data: zstandard.compress(data[:1000]) + _SKIPPABLE + zstandard.compress(data[1000:]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "xz in streams": lambda data: lzma.compress(data[:1000]) + bytes(8) + lzma.compress(data[1000:]) + bytes(4),
}


def _read(path: Path, packed: bytes) -> bytes:
    """As it lies in an archive: with something before and after."""
    path.write_bytes(b"before" + packed + b"after")
    with path.open("rb") as file, decompressed(Window(file, offset=6, size=len(packed))) as stream:
        return b"".join(iter(lambda: stream.read(1 << 18), b""))


@pytest.mark.parametrize("name", PACKINGS)
def test_every_packing_gives_what_was_packed(tmp_path: Path, name: str) -> None:
    assert _read(tmp_path / "packed", PACKINGS[name](_CONTENT)) == _CONTENT


@pytest.mark.parametrize("name", sorted(name for name in PACKINGS if not name.startswith(("plain", "zstd"))))
def test_what_is_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    """But for zstd, which ends silently: what is missing then is missing in the tar."""
    packed = PACKINGS[name](_CONTENT).rstrip(b"\0")
    with pytest.raises(InvalidArgument) as refusal:
        _read(tmp_path / "packed", packed[:-20])
    assert refusal.value.reason == "CORRUPT_IMAGE"


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0"])
def test_what_only_begins_like_a_packing_is_refused(tmp_path: Path, magic: bytes) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        _read(tmp_path / "packed", magic + b"junk" * 100)
    assert refusal.value.reason == "CORRUPT_IMAGE"


def test_xz_gets_no_more_memory_than_its_strongest_preset_needs(tmp_path: Path) -> None:
    wanted = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}]
    with pytest.raises(InvalidArgument, match=r"[Mm]emory"):
        _read(tmp_path / "packed", lzma.compress(b"x" * 1000, filters=wanted))
    assert _read(tmp_path / "packed", lzma.compress(b"x" * 1000, preset=9)) == b"x" * 1000


def test_a_gzip_stream_is_read_with_small_buffers(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(24 << 20)
    (tmp_path / "packed").write_bytes(gzip.compress(content, compresslevel=1))
    size = (tmp_path / "packed").stat().st_size
    with (tmp_path / "packed").open("rb") as file:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            with decompressed(Window(file, offset=0, size=size)) as stream:
                read = sum(len(piece) for piece in iter(lambda: stream.read(1 << 18), b""))
            taken = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert read == len(content)
    assert taken < _MOST
