"""The rules an image's configuration is held to: those of a request's, the protocol's as well as the further ones."""

from __future__ import annotations

from api_service.operations.engine import Engine
from api_service.operations.image_config_merge import validate_image_config
from api_service.records.config import ImageConfig
from common.errors import InvalidArgument, Violation


def check_image_config(engine: Engine, config: ImageConfig, *, field: str) -> None:
    """`field` is what the request named the image or its configuration by. Raises InvalidArgument."""
    broken = [
        Violation(field=field, description=f"the image's own {rule.field}: {rule.description}")
        for rule in engine.image_rules(config)
    ]
    broken += validate_image_config(config, field)
    if broken:
        raise InvalidArgument(violations=broken, reason="IMAGE_CONFIG_INVALID")
