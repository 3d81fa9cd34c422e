"""Finds the images in an archive: `docker save`'s manifest.json, or an OCI image layout's index.json.

Docker 25 and later write both; manifest.json is read then, because it has the names as Docker spells them. Sources:
moby image/spec/spec.md (v1.2), OCI image spec "image-layout.md", "image-index.md", "manifest.md".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from common.errors import InvalidArgument
from executor_service.registry.manifests import fits, spelled
from executor_service.registry.source import Platform
from executor_service.storage.archive import Archive
from executor_service.storage.image_config import UNSUPPORTED_PLATFORM, ImageConfig, parse_config, parse_json
from executor_service.storage.refusals import corrupt_image
from executor_service.storage.unpack import Blob

_DIGEST = re.compile(r"(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})")
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAX_IMAGES = 1000
_MAX_INDEX_DEPTH = 4
_MAX_NAME = 512  # bytes of a reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """An image as an archive describes it; `layers` belong to `config.diff_ids`, one to one. Nothing of the layers was
    read yet."""

    config: ImageConfig
    layers: tuple[Blob, ...]
    names: tuple[str, ...]


def images_in(archive: Archive, *, platform: Platform) -> list[ArchivedImage]:
    """Every image of the archive for `platform`, each once. Raises InvalidArgument; blocks."""
    if not ("manifest.json" in archive or "index.json" in archive):
        archive.enter_sole_directory()  # a layout that was packed from outside
    if "manifest.json" in archive:
        described = _docker_images(archive, platform)
    elif "index.json" in archive:
        described = _oci_images(archive, platform)
    else:
        raise corrupt_image("archive: neither a `docker save` archive (manifest.json) nor an OCI layout (index.json)")
    unique: dict[str, ArchivedImage] = {}
    for image in _of_this_platform(described, platform):
        before = unique.get(image.config.id)
        names = tuple(dict.fromkeys((before.names if before else ()) + image.names))
        unique[image.config.id] = ArchivedImage(config=image.config, layers=image.layers, names=names)
    return list(unique.values())


def _of_this_platform(described: Iterator[Callable[[], ArchivedImage]], platform: Platform) -> Sequence[ArchivedImage]:
    """At least one. What else is in the archive is for others."""
    found: list[ArchivedImage] = []
    foreign = InvalidArgument(
        f"archive: it holds no image for {spelled(platform)}; load another one, or ask for a platform it is for",
        reason=UNSUPPORTED_PLATFORM,
    )
    for image in described:
        try:
            found.append(image())
        except InvalidArgument as error:
            if error.reason != UNSUPPORTED_PLATFORM:
                raise
            foreign = error
    if not found:
        raise foreign
    return found


def _docker_images(archive: Archive, platform: Platform) -> Iterator[Callable[[], ArchivedImage]]:
    for item in _items(archive.read_json("manifest.json"), "manifest.json"):
        yield partial(_docker_image, archive, item, platform)


def _docker_image(archive: Archive, item: Mapping[str, object], platform: Platform) -> ArchivedImage:
    path = _text(item, "Config", "manifest.json")
    config = parse_config(archive.read(path), architecture=platform.architecture)
    stated = re.search(r"([a-f0-9]{64})(\.json)?$", path)
    if stated and f"sha256:{stated[1]}" != config.id:
        raise corrupt_image(f"archive: the config {path!r} has the digest {config.id}")
    layers = item.get("Layers") or []
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise corrupt_image("archive: manifest.json: Layers is not a list of names")
    return _image(config, tuple(archive.blob(layer) for layer in layers), item.get("RepoTags") or [])


def _oci_images(archive: Archive, platform: Platform) -> Iterator[Callable[[], ArchivedImage]]:
    index = archive.read_json("index.json")
    for descriptor in _items(_field(index, "manifests", "index.json"), "index.json"):
        if not _matches(descriptor, platform):
            continue
        manifest = _manifest(archive, descriptor, platform, set())
        if manifest is None:
            continue
        annotations = descriptor.get("annotations")
        known = annotations if isinstance(annotations, dict) else {}
        name = next((known[key] for key in _NAME_ANNOTATIONS if known.get(key)), None)
        yield partial(_oci_image, archive, manifest, platform, [] if name is None else [name])


def _oci_image(archive: Archive, manifest: Mapping[str, object], platform: Platform, names: object) -> ArchivedImage:
    _, data = _verified(archive, _field(manifest, "config", "manifest"))
    config = parse_config(data, architecture=platform.architecture)
    blobs = []
    for layer in _items(manifest.get("layers") or [], "manifest"):
        digest = _digest(layer)
        blobs.append(archive.blob(_blob_path(digest), digest=digest))
    return _image(config, tuple(blobs), names)


def _manifest(
    archive: Archive, descriptor: Mapping[str, object], platform: Platform, barren: set[str], depth: int = 0
) -> Mapping[str, object] | None:
    """The manifest meant by a descriptor of a manifest or of an index (the first for this platform). `barren`: indexes
    without any, which are not looked through again however often they are named."""
    if _digest(descriptor) in barren:
        return None
    digest, data = _verified(archive, descriptor)
    document = parse_json(data, f"archive: the manifest {digest}")
    if not isinstance(document, dict):
        raise corrupt_image(f"archive: the manifest {digest} is not a JSON object")
    if document.get("mediaType", descriptor.get("mediaType")) not in _INDEX_TYPES:
        return document
    if depth == _MAX_INDEX_DEPTH:
        raise corrupt_image("archive: an index within an index, and so on")
    for inner in _items(_field(document, "manifests", "index"), "index"):
        if not _matches(inner, platform):
            continue
        if (found := _manifest(archive, inner, platform, barren, depth + 1)) is not None:
            return found
    barren.add(digest)
    return None


def _matches(descriptor: Mapping[str, object], platform: Platform) -> bool:
    """No platform stated: its config will tell. Attestations are for `unknown/unknown`."""
    known = descriptor.get("platform")
    return not isinstance(known, dict) or fits(known, platform)


def _image(config: ImageConfig, layers: tuple[Blob, ...], names: object) -> ArchivedImage:
    if len(layers) != len(config.diff_ids):
        raise corrupt_image(
            f"archive: {len(layers)} layers, but the config of {config.id} names {len(config.diff_ids)}"
        )
    if not isinstance(names, list) or len(names) > _MAX_IMAGES or not all(_is_name(name) for name in names):
        raise corrupt_image("archive: an image's names are not a list of references")
    return ArchivedImage(config=config, layers=layers, names=tuple(names))


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isprintable() and 0 < len(name.encode(errors="replace")) <= _MAX_NAME


def _verified(archive: Archive, descriptor: object) -> tuple[str, bytes]:
    digest = _digest(descriptor)
    data = archive.read(_blob_path(digest))
    algorithm, _, stated = digest.partition(":")
    if (actual := hashlib.new(algorithm, data).hexdigest()) != stated:
        raise corrupt_image(f"archive: the blob {digest} has the digest {algorithm}:{actual}")
    return digest, data


def _digest(descriptor: object) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise corrupt_image("archive: a descriptor without a sha256 or sha512 digest")
    return digest


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _items(value: object, where: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or len(value) > _MAX_IMAGES or not all(isinstance(item, dict) for item in value):
        raise corrupt_image(f"archive: {where} is not a list of at most {_MAX_IMAGES} objects")
    return value


def _field(document: object, key: str, where: str) -> object:
    if not isinstance(document, dict) or key not in document:
        raise corrupt_image(f"archive: {where} has no {key}")
    return document[key]


def _text(document: Mapping[str, object], key: str, where: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise corrupt_image(f"archive: {where} has no {key}")
    return value
