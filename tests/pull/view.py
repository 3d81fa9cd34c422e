"""Layers on a terminal, a line each, drawn anew where they stand; elsewhere a line whenever one enters a phase."""

from __future__ import annotations

import os
from typing import TextIO

from slipway.v1 import image_service_pb2 as pb

_PHASES = {
    pb.LAYER_PHASE_WAITING: "waiting",
    pb.LAYER_PHASE_DOWNLOADING: "downloading",
    pb.LAYER_PHASE_UNPACKING: "unpacking",
    pb.LAYER_PHASE_EXISTS: "exists",
    pb.LAYER_PHASE_DONE: "done",
}
_MOVING = pb.LAYER_PHASE_DOWNLOADING
_BAR = 24  # characters
_UP, _CLEAR_LINE = "\x1b[{}A", "\x1b[K"


class View:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = 0
        self._layers: dict[str, pb.LayerProgress] = {}

    def show(self, progress: pb.LayerProgress) -> None:
        before = self._layers.get(progress.digest)
        self._layers[progress.digest] = progress
        if self._out.isatty():
            self._draw()
        elif before is None or (before.phase, before.retries) != (progress.phase, progress.retries):
            print(line(progress), file=self._out, flush=True)

    def _draw(self) -> None:
        """What does not fit is above the screen, where nothing can be drawn: those that still move are last."""
        columns, rows = os.get_terminal_size(self._out.fileno())
        shown = list(self._layers.values())
        if len(shown) >= rows:
            shown = sorted(shown, key=lambda each: each.phase == _MOVING)[1 - rows :]
        up = _UP.format(self._drawn) if self._drawn else ""
        text = "".join(f"{line(each)[: columns - 1]}{_CLEAR_LINE}\n" for each in shown)
        self._out.write(f"{up}{text}")
        self._out.flush()
        self._drawn = len(shown)


def line(progress: pb.LayerProgress) -> str:
    """`e4b68c2a6f02  downloading  [======>      ]  12.5 of 28.0 MiB  1 retry`"""
    parts = [progress.digest.partition(":")[2][:12], _PHASES.get(progress.phase, "").ljust(11)]
    if progress.phase == _MOVING and progress.total:
        filled = _BAR * progress.done // progress.total
        parts.append(f"[{('=' * filled + '>')[:_BAR].ljust(_BAR)}]")
        parts.append(f"{progress.done / 2**20:.1f} of {progress.total / 2**20:.1f} MiB")
    else:
        parts.append(f"{progress.total / 2**20:.1f} MiB")
    if progress.retries:
        parts.append(f"{progress.retries} {'retry' if progress.retries == 1 else 'retries'}")
    return "  ".join(parts)
