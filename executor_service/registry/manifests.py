"""Reads manifests and indexes of registries as hostile input. Sources: OCI image spec "manifest.md", "image-index.md";
Docker image manifest version 2, schema 2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from common.errors import InvalidArgument
from executor_service.registry.source import DIGEST, Descriptor, Manifest, Platform
from executor_service.storage.image_config import MAX_LAYERS, parse_json
from executor_service.storage.refusals import corrupt_image, word

MAX_MANIFEST = 4 << 20  # bytes
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", MANIFEST)
ACCEPTED = (*_MANIFESTS, *_INDEXES)
_LAYERS = frozenset(
    {
        LAYER,
        "application/vnd.docker.image.rootfs.diff.tar",
        *(f"application/vnd.oci.image.layer.v1.tar{packing}" for packing in ("", "+gzip", "+zstd")),
    }
)
_VARIANTS = {"arm64": "v8"}  # what an index need not say


def is_index(content: bytes, media_type: str) -> bool:
    return _document(content).get("mediaType", media_type) in _INDEXES


def chosen(content: bytes, platform: Platform) -> Descriptor:
    """The first manifest of an index for `platform`. Raises InvalidArgument (UNSUPPORTED_PLATFORM)."""
    manifests = _document(content).get("manifests")
    if not isinstance(manifests, list):
        raise corrupt_image("index: it has no list of manifests")
    found = []
    for item in manifests:
        known = item.get("platform") if isinstance(item, dict) else None
        if not isinstance(known, dict):
            continue
        found.append("/".join(word(known.get(key)) for key in ("os", "architecture", "variant") if key in known))
        if fits(known, platform):
            return _descriptor(item, "index")
    raise InvalidArgument(
        f"image: there is none for {spelled(platform)}; it is there for {', '.join(found[:20]) or 'no platform'}",
        reason="UNSUPPORTED_PLATFORM",
    )


def spelled(platform: Platform) -> str:
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))


def parse_manifest(content: bytes, media_type: str) -> Manifest:
    """Raises InvalidArgument (CORRUPT_IMAGE, UNSUPPORTED_MANIFEST)."""
    document = _document(content)
    kind = document.get("mediaType", media_type)
    if kind not in _MANIFESTS:
        raise InvalidArgument(
            f"manifest: its media type {word(kind)!r} is none of an image; push the image with a current tool",
            reason="UNSUPPORTED_MANIFEST",
        )
    layers = document.get("layers") or []
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise corrupt_image(f"manifest: layers is not a list of at most {MAX_LAYERS}")
    found = tuple(_descriptor(layer, "manifest") for layer in layers)
    for layer in found:
        if layer.media_type not in _LAYERS:
            raise InvalidArgument(
                f"manifest: the layer {layer.digest} has the media type {word(layer.media_type)!r}, which is not one "
                "of a tar, plain or packed with gzip or zstd",
                reason="UNSUPPORTED_MANIFEST",
            )
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Manifest(
        descriptor=Descriptor(media_type=str(kind), digest=digest, size=len(content)),
        content=content,
        config=_descriptor(document.get("config"), "manifest"),
        layers=found,
    )


def write_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """Of the type `MANIFEST`, which every registry and engine takes."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": config.media_type, "size": config.size, "digest": config.digest},
        "layers": [{"mediaType": layer.media_type, "size": layer.size, "digest": layer.digest} for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def fits(known: Mapping[str, object], platform: Platform) -> bool:
    """Whether the `platform` of a descriptor is the wanted one."""
    if (known.get("os"), known.get("architecture")) != (platform.os, platform.architecture):
        return False
    default = _VARIANTS.get(platform.architecture, "")
    return not platform.variant or (known.get("variant") or default) == platform.variant


def _descriptor(item: object, where: str) -> Descriptor:
    if not isinstance(item, dict):
        raise corrupt_image(f"{where}: a descriptor is not an object")
    media_type, digest, size = item.get("mediaType", ""), item.get("digest"), item.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str) or type(size) is not int or size < 0:
        raise corrupt_image(f"{where}: a descriptor lacks its media type, digest or size")
    if not DIGEST.fullmatch(digest):
        raise corrupt_image(f"{where}: {digest[:100]!r} is not a digest, sha256:<64 hex> or sha512:<128 hex>")
    return Descriptor(media_type=media_type, digest=digest, size=size)


def _document(content: bytes) -> Mapping[str, object]:
    document = parse_json(content, "manifest")
    if not isinstance(document, dict):
        raise corrupt_image("manifest: not a JSON object")
    return document
