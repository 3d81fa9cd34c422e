"""Take an image in from a registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from common.errors import InvalidArgument, Violation
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.registry.source import Endpoint, Patience, Platform
from executor_service.storage.images import PulledImage
from executor_service.storage.layer_progress import Report

# They become parts of a URL; https://github.com/opencontainers/distribution-spec/blob/main/spec.md
_HOST = re.compile(r"([a-zA-Z0-9.-]{1,253}|\[[a-fA-F0-9:]{2,45}\])(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_REFERENCE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}|sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_PART = re.compile(r"[a-zA-Z0-9_-]{0,64}")  # of a platform
_BEARER = re.compile(r"[!-~]*")
_MAX_REPOSITORY = 255  # characters
_MAX_NAME = 512  # characters
_MAX_ENDPOINTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedImage:
    """`reference` is a tag or a manifest's digest; `name` is kept with the image, unless it is empty."""

    endpoints: tuple[Endpoint, ...]
    reference: str
    platform: Platform
    name: str


def check_wanted_image(wanted: WantedImage) -> None:
    """Raises InvalidArgument."""
    if broken := list(_violations(wanted)):
        raise InvalidArgument(violations=broken)


async def image_pull(node: Node, wanted: WantedImage, report: Report, patience: Patience) -> PulledImage:
    """Idempotent. Raises what the registry and the image store raise."""
    with host_errors("image"):
        async with node.seams.registries(wanted.endpoints, patience) as source:
            return await node.seams.images.pull(
                source, wanted.reference, wanted.platform, name=wanted.name, report=report
            )


def endpoint_violations(endpoint: Endpoint, field: str) -> Iterator[Violation]:
    if not _HOST.fullmatch(endpoint.host) or not _is_address(endpoint.host):
        yield Violation(field=f"{field}.host", description="must be a host name, with a port if any")
    if len(endpoint.repository) > _MAX_REPOSITORY or not _REPOSITORY.fullmatch(endpoint.repository):
        yield Violation(field=f"{field}.repository", description="must be a repository's name")
    if not _BEARER.fullmatch(endpoint.credentials.registry_token):
        why = "must be printable ASCII without spaces"
        yield Violation(field=f"{field}.credentials.registry_token", description=why)


def platform_violations(platform: Platform) -> Iterator[Violation]:
    if platform.os != "linux":
        yield Violation(field="platform.os", description="must be linux")
    for part in ("architecture", "variant"):
        if not _PART.fullmatch(getattr(platform, part)):
            why = "must be letters, digits, '_' and '-', at most 64"
            yield Violation(field=f"platform.{part}", description=why)


def _is_address(host: str) -> bool:
    """Whether a URL can have it: some labels of internationalised names say nothing."""
    try:
        return bool(httpx.URL(f"https://{host}/").host)
    except (httpx.InvalidURL, UnicodeError):
        return False


def _violations(wanted: WantedImage) -> Iterator[Violation]:
    if not 0 < len(wanted.endpoints) <= _MAX_ENDPOINTS:
        yield Violation(field="endpoints", description=f"there must be 1 to {_MAX_ENDPOINTS}")
    for index, endpoint in enumerate(wanted.endpoints):
        yield from endpoint_violations(endpoint, f"endpoints[{index}]")
    if not _REFERENCE.fullmatch(wanted.reference):
        yield Violation(field="reference", description="must be a tag, sha256:<64 hex> or sha512:<128 hex>")
    yield from platform_violations(wanted.platform)
    if len(wanted.name) > _MAX_NAME:
        yield Violation(field="name", description=f"must have at most {_MAX_NAME} characters")
