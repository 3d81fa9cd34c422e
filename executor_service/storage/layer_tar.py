"""A layer given out again as the tar it came as."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from executor_service.storage.tar_record import recorded_tar
from executor_service.threads import finish


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTar:
    """`size` in bytes, not compressed. `record` and `tree` are this host's."""

    diff_id: str
    size: int
    record: Path
    tree: Path

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Its bytes, about 1 MiB at a time, read as they are taken; may be asked for again. Raises DataLoss
        (`LAYER_DAMAGED`) before the last of them when they are not what `diff_id` says."""
        pieces = recorded_tar(self.record, self.tree, self.diff_id)
        try:
            while piece := await finish(lambda: next(pieces, b"")):
                yield piece
        finally:
            await finish(pieces.close)
