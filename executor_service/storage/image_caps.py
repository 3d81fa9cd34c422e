"""What one image may take on this node, whichever way it comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.errors import ResourceExhausted
from executor_service.storage.layers import LayerStore, layer_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCaps:
    """All layers of an image together: `unpacked` bytes of their files, `entries` of their tars (headers counted)."""

    unpacked: int = 64 << 30
    entries: int = 4_000_000

    def check(self, layers: LayerStore, diff_ids: Iterable[str]) -> None:
        """Those of the layers that are here already: an image that is too large is found out before it is whole.
        Raises ResourceExhausted (`IMAGE_TOO_LARGE`)."""
        here = {layer_name(diff_id) for diff_id in diff_ids} & layers.names()
        if (size := sum(map(layers.size, here))) > self.unpacked:
            raise image_too_large(f"its layers have {size} bytes unpacked", f"{self.unpacked} (image_max_bytes)")
        if (entries := sum(map(layers.entries, here))) > self.entries:
            raise image_too_large(f"its layers have {entries} entries", f"{self.entries} (image_max_entries)")


def image_too_large(what: str, limit: str) -> ResourceExhausted:
    return ResourceExhausted(f"image: {what}; the limit of this node is {limit}", reason="IMAGE_TOO_LARGE")
