"""What one image may take on this node, whichever way it comes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from common.errors import ResourceExhausted


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCaps:
    """All layers of an image together: `unpacked` bytes of their files, `entries` of their tars (headers counted)."""

    unpacked: int = 64 << 30
    entries: int = 4_000_000


class ImageMeter:
    """Counts the layers of one image that is being taken in, those under way too: an image that is too large is found
    out before the layer is whole that makes it so."""

    def __init__(self, caps: ImageCaps) -> None:
        self._caps = caps
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[int, int]] = {}
        self._size = 0
        self._entries = 0

    def count(self, layer: str, size: int, entries: int) -> None:
        """The layer has so many bytes and entries, as far as is known. May be called in any thread. Raises
        ResourceExhausted (`IMAGE_TOO_LARGE`)."""
        with self._lock:
            size_before, entries_before = self._layers.get(layer, (0, 0))
            self._layers[layer] = (size, entries)
            self._size += size - size_before
            self._entries += entries - entries_before
            all_bytes, all_entries = self._size, self._entries
        if all_bytes > self._caps.unpacked:
            what = f"its layers have {all_bytes} bytes unpacked, or more"
            raise image_too_large(what, f"{self._caps.unpacked} (image_max_bytes)")
        if all_entries > self._caps.entries:
            what = f"its layers have {all_entries} entries, or more"
            raise image_too_large(what, f"{self._caps.entries} (image_max_entries)")


def image_too_large(what: str, limit: str) -> ResourceExhausted:
    return ResourceExhausted(f"image: {what}; the limit of this node is {limit}", reason="IMAGE_TOO_LARGE")
