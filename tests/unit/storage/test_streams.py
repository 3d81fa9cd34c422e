"""What reading a packed layer takes of memory, whatever the layer's size."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from pathlib import Path

from executor_service.storage.streams import Window, decompressed

_MOST = 5 << 20  # bytes of buffers for one stream


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
