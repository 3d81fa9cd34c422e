"""The record of a container's root filesystem on this node, `containers/<id>/snapshot.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from executor_service.storage.image_config import DIGEST
from executor_service.storage.init_layer import init_layer_name
from executor_service.storage.layers import layer_name


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """`image_id` may be empty; `layers` are the image's diff ids, lowest first."""

    image_id: str
    layers: tuple[str, ...]

    def names(self) -> list[str]:
        """Every layer of the layer store below the container, topmost first, each once: overlayfs refuses a directory
        that is named twice, and what a layer says again further down, it has said already."""
        return [init_layer_name(self.layers), *dict.fromkeys(map(layer_name, reversed(self.layers)))]


def snapshot_to_json(record: SnapshotRecord) -> bytes:
    return json.dumps(asdict(record)).encode()


def snapshot_from_json(data: bytes) -> SnapshotRecord:
    """Raises ValueError, KeyError, TypeError for what is no record."""
    known = json.loads(data)
    layers = tuple(str(layer) for layer in known["layers"])
    if not all(DIGEST.fullmatch(layer) for layer in layers):
        raise ValueError("a layer is not named by its digest")
    return SnapshotRecord(image_id=str(known["image_id"]), layers=layers)
