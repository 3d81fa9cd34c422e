"""Everything known of one image."""

from __future__ import annotations

from api_service.operations.engine import Engine
from api_service.operations.image_resolve import resolve_image
from api_service.records.image import ImageRecord


async def inspect_image(engine: Engine, image: str) -> ImageRecord:
    """Raises NotFound, InvalidArgument."""
    return await resolve_image(engine, image)
