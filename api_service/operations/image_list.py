"""Which images there are, and one of them."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from api_service.operations.engine import Engine
from api_service.operations.image_resolve import resolve_image
from api_service.operations.label_filter import has_labels
from api_service.records.image import ImageRecord
from api_service.validation.references import InvalidReference, normalise_reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFilter:
    """`references`: names and patterns, alternatives. `labels` all hold. `dangling`: True only without a name, False
    only with one, None both. `before`, `since`: images, of which those listed are older or newer."""

    references: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    dangling: bool | None = None
    before: str = ""
    since: str = ""


async def list_images(engine: Engine, wanted: ImageFilter) -> Sequence[ImageRecord]:
    """Newest first; images that do not say when they were made come last, and are older than all others. Raises
    NotFound and InvalidArgument for an image to compare with."""
    older = await resolve_image(engine, wanted.before, field="before") if wanted.before else None
    newer = await resolve_image(engine, wanted.since, field="since") if wanted.since else None
    found = [
        image
        for image in await engine.images.all()
        if not image.condemned
        and _matches(image, wanted)
        and (older is None or _made(image) < _made(older))
        and (newer is None or _made(image) > _made(newer))
    ]
    return sorted(found, key=lambda image: (-_made(image), image.id))


def _made(image: ImageRecord) -> int:
    return image.created or 0


def _matches(image: ImageRecord, wanted: ImageFilter) -> bool:
    if wanted.dangling is not None and wanted.dangling == bool(image.names):
        return False
    if wanted.references and not any(
        _is_named(name, pattern) for name in image.references for pattern in wanted.references
    ):
        return False
    return has_labels(image.config.labels, wanted.labels)


def _is_named(name: str, pattern: str) -> bool:
    """A pattern without a tag means the repository with any."""
    with contextlib.suppress(InvalidReference):
        if name == normalise_reference(pattern).lookup:
            return True
    repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(repository, pattern)
