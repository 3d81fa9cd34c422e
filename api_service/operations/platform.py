"""`os[/architecture]`: what an image is for, and what it must be for."""

from __future__ import annotations

from api_service.executor_client.images import Platform
from api_service.records.image import ImageRecord
from common.errors import InvalidArgument, Violation

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


def check_platform(asked: str, image: ImageRecord, *, node_platform: str) -> str:
    """The platform of the container. `asked` empty: the node's. Raises InvalidArgument.

    What an image does not say about itself (one made of a plain tar) fits anything.
    """
    wanted_os, wanted_architecture = _parse(asked or node_platform)
    node_os, node_architecture = _parse(node_platform)
    os = image.os or wanted_os
    architecture = image.architecture or wanted_architecture or node_architecture
    if os != wanted_os or (wanted_architecture and architecture != wanted_architecture):
        why = "asked for" if asked else "the node's"
        raise _mismatch(
            f"the image {image.names[0] if image.names else image.id} is for {os}/{architecture}, not for "
            f"{asked or node_platform}, which is {why}; load the image for that platform, or ask for the image's"
        )
    if os != node_os:
        raise _mismatch(f"the node runs {node_os}, it cannot run programs for {os}")
    return f"{os}/{architecture}"


def is_for(asked: str, image: ImageRecord) -> bool:
    """Whether `check_platform` would take the image for the platform asked for. Raises InvalidArgument."""
    os, architecture = _parse(asked)
    return image.os in ("", os) and (not architecture or image.architecture in ("", architecture))


def parse_pull_platform(text: str, *, field: str = "platform") -> Platform:
    """`os[/architecture[/variant]]`; empty: the node's. `field` is what the request names it by. Raises
    InvalidArgument."""
    parts = text.strip().lower().split("/")
    if not text:
        return Platform()
    if len(parts) > 3 or not all(part and part.replace("-", "").replace("_", "").isalnum() for part in parts):
        why = f"{text[:64]!r} is not os, os/architecture or os/architecture/variant, like 'linux/arm64/v8'"
        raise _mismatch(why, field=field)
    os, architecture, variant = (*parts, "", "")[:3]
    if os != "linux":
        raise _mismatch(f"{text[:64]!r} is not for linux, which all nodes run; take the image for linux", field=field)
    return Platform(os=os, architecture=_ARCHITECTURES.get(architecture, architecture), variant=variant)


def _parse(text: str) -> tuple[str, str]:
    os, _, architecture = text.strip().lower().partition("/")
    if not os or "/" in architecture:
        raise _mismatch(f"{text[:64]!r} is not os or os/architecture, like 'linux/amd64'")
    return os, _ARCHITECTURES.get(architecture, architecture)


def _mismatch(why: str, *, field: str = "platform") -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field=field, description=why)], reason="PLATFORM_MISMATCH")
