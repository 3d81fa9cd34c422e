"""Images as one archive that both `docker load` and readers of OCI layouts take, laid out as Docker 25 does.

Deterministic: the same images with the same names give the same bytes. Sources: moby image/spec/spec.md (v1.2), OCI
image spec "image-layout.md", "annotations.md".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from executor_service.storage import tar_writer
from executor_service.storage.images import Image, ImageStore
from executor_service.storage.layer_tar import LayerTar
from executor_service.storage.tar_reader import Entry, Kind

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedName:
    """`busybox`, `latest` and `docker.io/library/busybox:latest`."""

    repository: str
    tag: str
    canonical: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedImage:
    """Which image, and by which names the archive is to have it."""

    image_id: str
    names: tuple[SavedName, ...]


async def saved(store: ImageStore, wanted: Sequence[SavedImage]) -> AsyncGenerator[bytes]:
    """The archive. Raises NotFound and FailedPrecondition before its first byte, DataLoss (`LAYER_DAMAGED`) before its
    end. What is saved stays on the node until then."""
    async with AsyncExitStack() as held:
        images = [(await store.get(each.image_id), each.names) for each in wanted]
        layers: dict[str, LayerTar] = {}
        for image, _ in images:
            for diff_id in image.layers:
                if diff_id not in layers:
                    layers[diff_id] = await held.enter_async_context(store.layer_tar(diff_id))
        yield _directory(b"blobs") + _directory(b"blobs/sha256")
        for layer in layers.values():
            yield _header(_path(layer.diff_id), layer.size)
            async with aclosing(layer.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
            yield tar_writer.padding(layer.size)
        yield _documents(images, layers)


def _documents(images: Sequence[tuple[Image, tuple[SavedName, ...]]], layers: dict[str, LayerTar]) -> bytes:
    files: dict[str, bytes] = {}
    descriptors: list[object] = []
    docker: list[object] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, names in images:
        manifest = _manifest(image, layers)
        files[_path(image.id)] = image.config
        files[_path(_digest(manifest))] = manifest
        descriptor = _descriptor(_MANIFEST, _digest(manifest), len(manifest))
        descriptors += [{**descriptor, "annotations": _annotations(name)} for name in names] or [descriptor]
        tags = [f"{name.repository}:{name.tag}" for name in names]
        paths = [_path(diff_id) for diff_id in image.layers]
        docker.append({"Config": _path(image.id), "RepoTags": tags or None, "Layers": paths})
        for name in names:
            top = image.layers[-1] if image.layers else image.id
            repositories.setdefault(name.repository, {})[name.tag] = top.removeprefix("sha256:")
    files["index.json"] = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors})
    files["manifest.json"] = _json(docker)
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    if repositories:
        files["repositories"] = _json(repositories)
    members = [_header(path, len(data)) + data + tar_writer.padding(len(data)) for path, data in files.items()]
    return b"".join(members) + tar_writer.END


def _manifest(image: Image, layers: dict[str, LayerTar]) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, image.id, len(image.config)),
            "layers": [_descriptor(_LAYER, diff_id, layers[diff_id].size) for diff_id in image.layers],
        }
    )


def _annotations(name: SavedName) -> dict[str, str]:
    return {"io.containerd.image.name": name.canonical, "org.opencontainers.image.ref.name": name.tag}


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _header(path: str, size: int) -> bytes:
    return tar_writer.header(Entry(name=path.encode(), kind=Kind.FILE, mode=0o644, size=size))


def _directory(path: bytes) -> bytes:
    return tar_writer.header(Entry(name=path, kind=Kind.DIRECTORY, mode=0o755))
