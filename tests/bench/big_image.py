"""The images of `tests.bench.images`, the same bytes every time."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import BuiltImage, descriptor, digest, directory, member, tar

_LAYERS = 7  # beside busybox's
_FILES = 46_000
_BYTES = 400_000_000
_DIRECTORIES = 60  # of a layer
_COMMAND = {"Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]}
_MANY = 39
_TEXT = b"What a program's files are made of repeats itself, and does not: half of it is as good as noise.\n" * 4000


def write_layouts(layout: Path) -> Sequence[str]:
    """One OCI layout with all of them; returns their names, `big` first."""
    (layout / "blobs/sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    with ProcessPoolExecutor(2) as workers:
        layers = list(workers.map(_layer, range(_LAYERS + 1)))
    base = busybox_image().layers[0]
    bottom = (base, gzip.compress(base, mtime=0))
    small = [tar([member(f"layer-{number}", b"x")]) for number in range(_MANY)]
    images = {
        "big": [bottom, *layers[:_LAYERS]],
        "changed": [bottom, *layers[: _LAYERS - 1], layers[_LAYERS]],
        "small": [bottom],
        "many": [bottom, *((each, gzip.compress(each, mtime=0)) for each in small)],
    }
    manifests = [_write(layout, name, pairs) for name, pairs in images.items()]
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return list(images)


def _layer(number: int) -> tuple[bytes, bytes]:
    """As a tar, and packed."""
    chance = random.Random(number)
    members = [directory(f"data-{number}")]
    members += [directory(f"data-{number}/{each}") for each in range(_DIRECTORIES)]
    for each in range(_FILES // _LAYERS):
        size = min(int(chance.expovariate(_LAYERS / _BYTES * (_FILES // _LAYERS))), 200_000)
        content = chance.randbytes(size // 2) + _TEXT[: size - size // 2]
        members.append(member(f"data-{number}/{each % _DIRECTORIES}/{each}", content))
    plain = tar(members)
    return plain, gzip.compress(plain, compresslevel=6, mtime=0)


def _write(layout: Path, name: str, layers: Sequence[tuple[bytes, bytes]]) -> dict[str, object]:
    config = BuiltImage(layers=[plain for plain, _ in layers], config=_COMMAND).config_json
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": descriptor(config, f"{kind}.config.v1+json"),
            "layers": [descriptor(packed, f"{kind}.layer.v1.tar+gzip") for _, packed in layers],
        }
    ).encode()
    for blob in (config, manifest, *(packed for _, packed in layers)):
        (layout / "blobs" / digest(blob).replace(":", "/")).write_bytes(blob)
    named = {"org.opencontainers.image.ref.name": name}
    return {**descriptor(manifest, f"{kind}.manifest.v1+json"), "annotations": named}
