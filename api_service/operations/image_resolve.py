"""Which image a request means: a whole id, a name, or the beginning of an id, in this order."""

from __future__ import annotations

from api_service.operations.engine import Engine
from api_service.records.image import ImageRecord
from api_service.validation.references import (
    InvalidReference,
    full_image_id,
    image_id_prefix,
    normalise_reference,
    validate_image,
)
from common.errors import InvalidArgument, NotFound


async def resolve_image(engine: Engine, text: str, *, field: str = "image") -> ImageRecord:
    """Raises InvalidArgument for what can be no image, and for an ambiguous id; NotFound."""
    if broken := validate_image(text, field):
        raise InvalidArgument(violations=broken)
    image = await _find(engine, text)
    if image is None or image.condemned:
        raise no_such_image(text)
    return image


async def _find(engine: Engine, text: str) -> ImageRecord | None:
    if (image_id := full_image_id(text)) is not None:
        return await engine.images.get(image_id)
    if (named := await _named(engine, text)) is not None:
        return named
    prefix = image_id_prefix(text)
    return await engine.images.with_prefix(prefix) if prefix is not None else None


async def _named(engine: Engine, text: str) -> ImageRecord | None:
    try:
        return await engine.images.named(normalise_reference(text).lookup)
    except InvalidReference:
        return None


def no_such_image(text: str, why: str = "pull it first (ImageService.PullImage)") -> NotFound:
    """`why`: what to do to have it."""
    return NotFound(
        f"No such image: {text}; {why}, load it (ImageService.LoadImage takes what `docker save` or skopeo writes), or "
        "look at ImageService.ListImages",
        resource_type="image",
        resource_name=text,
        reason="IMAGE_NOT_FOUND",
    )
