"""Reads and writes image configs (OCI image spec "config.md"; Docker's are the same object)."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from common.errors import InvalidArgument
from executor_service.registry.source import Platform
from executor_service.storage.refusals import corrupt_image, word

MAX_JSON = 4 * 1024 * 1024  # bytes of any JSON in an archive
MAX_LAYERS = 125  # Docker's limit too: more do not fit into one mount(2) with their descriptors' names

UNSUPPORTED_PLATFORM = "UNSUPPORTED_PLATFORM"

DIGEST = re.compile(r"sha256:[a-f0-9]{64}")

# Python's name of a machine → Go's, which images use.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}


def host_architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The parts of a config that storage needs; `data` is the whole of it, byte for byte."""

    id: str
    data: bytes
    diff_ids: tuple[str, ...]  # lowest first
    created: str


def parse_json(data: bytes, what: str) -> object:
    if len(data) > MAX_JSON:
        raise corrupt_image(f"{what}: {len(data)} bytes; the limit is {MAX_JSON}")
    try:
        value: object = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise corrupt_image(f"{what}: not a JSON document: {error}") from error
    return value


def parse_config(data: bytes, *, architecture: str) -> ImageConfig:
    """Raises InvalidArgument: CORRUPT_IMAGE when it is no config, UNSUPPORTED_PLATFORM when not for here."""
    config = parse_json(data, "image config")
    if not isinstance(config, dict):
        raise corrupt_image("image config: not a JSON object")
    here = ("linux", architecture)
    if (there := (config.get("os"), config.get("architecture"))) != here:
        raise InvalidArgument(
            f"image config: it is for {word(there[0])}/{word(there[1])}, and {'/'.join(here)} is wanted; take an image "
            "built for this platform",
            reason=UNSUPPORTED_PLATFORM,
        )
    return _parsed(data, config)


def written_config(data: bytes) -> ImageConfig:
    """Of what was made here, for whichever platform."""
    return _parsed(data, json.loads(data))


def _parsed(data: bytes, config: Mapping[str, object]) -> ImageConfig:
    created = config.get("created")
    return ImageConfig(
        id=f"sha256:{hashlib.sha256(data).hexdigest()}",
        data=data,
        diff_ids=_diff_ids(config),
        created=created if isinstance(created, str) and len(created) <= 64 and created.isascii() else "",
    )


def _diff_ids(config: Mapping[str, object]) -> tuple[str, ...]:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None and isinstance(rootfs, dict):
        diff_ids = []  # an image without layers: Go writes null
    if not isinstance(diff_ids, list) or not all(isinstance(i, str) and DIGEST.fullmatch(i) for i in diff_ids):
        raise corrupt_image("image config: rootfs.diff_ids is not a list of sha256 digests")
    if len(diff_ids) > MAX_LAYERS:
        raise corrupt_image(f"image config: {len(diff_ids)} layers; the limit is {MAX_LAYERS}")
    return tuple(diff_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Of a build, as the history of an image tells it. `created` is RFC 3339; empty: now."""

    created_by: str = ""
    author: str = ""
    comment: str = ""
    created: str = ""


def config_of_commit(base: bytes, config: Mapping[str, object], *, diff_id: str, step: Step) -> bytes:
    """The config of the image `base` with one more layer, created by `step`, and `config` in the place of its own.
    Raises InvalidArgument when it is too large, or of too many layers."""
    document = json.loads(base)
    now = step.created or _now()
    told = {"created": now, "created_by": step.created_by, "author": step.author, "comment": step.comment}
    before = document.get("history")
    document |= {
        "config": dict(config),
        "created": now,
        "history": [*(before if isinstance(before, list) else ()), {key: text for key, text in told.items() if text}],
        "rootfs": {"type": "layers", "diff_ids": [*_diff_ids(document), diff_id]},
    }
    if step.author:
        document["author"] = step.author
    for stale in ("container", "container_config", "id", "parent"):
        document.pop(stale, None)  # of whoever built the base
    if len(document["rootfs"]["diff_ids"]) > MAX_LAYERS:
        raise InvalidArgument(
            f"image: it would have more than {MAX_LAYERS} layers; export the container and import it as one",
            reason="TOO_MANY_LAYERS",
        )
    return _encoded(document)


def config_of_rootfs(config: Mapping[str, object], *, diff_id: str, platform: Platform, step: Step) -> bytes:
    """The config of an imported root filesystem."""
    now = step.created or _now()
    document = {
        "architecture": platform.architecture,
        "config": dict(config),
        "created": now,
        "history": [{"created": now, "comment": step.comment or "imported from a root filesystem archive"}],
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    if platform.variant:
        document["variant"] = platform.variant
    return _encoded(document)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _encoded(document: Mapping[str, object]) -> bytes:
    try:
        data = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"config: not a JSON object: {error}") from error
    if len(data) > MAX_JSON:
        raise InvalidArgument(f"config: {len(data)} bytes; the limit is {MAX_JSON}")
    return data
