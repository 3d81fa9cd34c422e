"""The record of an image on this node, `images/<hex>.json`."""

from __future__ import annotations

import hashlib
import json

from executor_service.storage.image_config import DIGEST
from executor_service.storage.images import Image


def image_to_json(image: Image) -> bytes:
    record = {
        "config": image.config.decode(),
        "layers": image.layers,
        "size": image.size,
        "created_at": image.created_at,
        "names": image.names,
    }
    return json.dumps(record, ensure_ascii=False).encode()


def image_from_json(image_id: str, data: bytes) -> Image:
    """Raises ValueError, KeyError, TypeError for what is no record of this image. `layer_sizes` are not in it."""
    record = json.loads(data)
    config = record["config"].encode()
    if f"sha256:{hashlib.sha256(config).hexdigest()}" != image_id:
        raise ValueError("the config's digest is not the record's name")
    layers = tuple(str(layer) for layer in record["layers"])
    if not all(DIGEST.fullmatch(layer) for layer in layers):
        raise ValueError("a layer is not named by its digest")
    return Image(
        id=image_id,
        config=config,
        layers=layers,
        size=int(record["size"]),
        created_at=str(record["created_at"]),
        names=tuple(str(name) for name in record["names"]),
    )
