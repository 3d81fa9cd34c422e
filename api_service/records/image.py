"""The record of an image: its names, which are this service's, and the facts its configuration holds."""

from __future__ import annotations

from dataclasses import dataclass

from api_service.records.config import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """`id` is `sha256:<hex>`; `digests`, `repository@sha256:<hex>`, are the manifests it was pulled by; `created` is in
    nanoseconds since the epoch, None when the image does not say; `size` in bytes, unpacked; `layers` are diff ids,
    lowest first; `nodes` are those that hold the image.

    A `condemned` image was removed while a stopped container still needs its layers: nobody sees it, and it goes with
    its last container."""

    id: str
    names: tuple[str, ...]
    config: ImageConfig
    size: int
    created: int | None
    architecture: str
    os: str
    layers: tuple[str, ...]
    nodes: tuple[str, ...]
    condemned: bool = False
    digests: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """All that means this image, but for its id."""
        return (*self.names, *self.digests)
