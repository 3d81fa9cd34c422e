"""What becomes of the layers of an image on their way from or to a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto


class LayerPhase(Enum):
    WAITING = auto()
    DOWNLOADING = auto()
    UNPACKING = auto()
    EXISTS = auto()
    DONE = auto()
    PACKING = auto()
    UPLOADING = auto()
    MOUNTED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """`digest` is the compressed layer's, or the diff id of one that is pushed; `done` and `total` are bytes; `retries`
    counts broken connections."""

    digest: str
    phase: LayerPhase
    done: int
    total: int
    retries: int = 0


Report = Callable[[LayerProgress], None]
