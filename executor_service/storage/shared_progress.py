"""Layers that several pulls want at the same time: one pull makes them, and all see how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from executor_service.storage.layer_progress import LayerPhase, LayerProgress, Report


class SharedProgress:
    """By the compressed layer's digest, for as long as anybody wants it."""

    def __init__(self) -> None:
        self._wanted: dict[str, list[Report]] = {}
        self._newest: dict[str, LayerProgress] = {}

    @contextmanager
    def among(self, digests: Iterable[str], report: Report) -> Iterator[Report]:
        """Within the block `report` hears of these layers, whichever pull makes them. What is told to the yielded one
        is heard by all that want the layer."""
        layers = frozenset(digests)
        for digest in layers:
            self._wanted.setdefault(digest, []).append(report)
        try:
            yield lambda progress: self._tell(progress, report)
        finally:
            for digest in layers:
                self._wanted[digest].remove(report)
                if not self._wanted[digest]:
                    del self._wanted[digest]
                    self._newest.pop(digest, None)

    def _tell(self, progress: LayerProgress, own: Report) -> None:
        if progress.phase is LayerPhase.WAITING:
            # For another pull, perhaps: that one's word is newer.
            own(self._newest.get(progress.digest, progress))
        elif progress.phase is LayerPhase.EXISTS:
            own(progress)
        else:
            self._newest[progress.digest] = progress
            for report in self._wanted.get(progress.digest, ()):
                report(progress)
