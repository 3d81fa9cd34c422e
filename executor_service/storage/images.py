"""Images on this node: their record and the store's Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from executor_service.registry.source import ImageSource, ImageTarget, Platform
from executor_service.storage.image_config import Step
from executor_service.storage.layer_progress import Report
from executor_service.storage.layer_tar import LayerTar

HERE = Platform(os="linux", architecture="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is here whole: every layer unpacked.

    `id` is `sha256:<hex>`, the digest of `config` (the image config JSON, byte for byte as it came). `size` is the sum
    of the layers' unpacked bytes. `layers` are diff ids, lowest first. `names` are the references the archive
    carried, as written there (`busybox:latest`); the executor attaches no meaning to them. `layer_sizes` are the bytes
    of each of `layers`, unpacked.
    """

    id: str
    config: bytes
    layers: tuple[str, ...]
    size: int  # bytes
    created_at: str  # RFC 3339, from the config; empty when it has none
    names: tuple[str, ...] = ()
    layer_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """`digest` is the manifest's, `index_digest` that of the index it was chosen from, if any."""

    image: Image
    digest: str
    index_digest: str = ""


class ImageStore(Protocol):
    """Content-addressed images. Nothing of a refused archive stays; a stored image survives SIGKILL and power loss. A
    platform's architecture may be empty: this node's."""

    async def load(self, archive: AsyncIterator[bytes], platform: Platform = HERE) -> Sequence[Image]:
        """Take in a `docker save` archive or an OCI image layout as a tar (plain or packed): its images for `platform`.

        Idempotent: an image that is here already is returned again. Raises InvalidArgument (reason
        `CORRUPT_IMAGE`) when the archive is malformed, a digest differs or an entry is hostile, ResourceExhausted
        when a cap or the disk is hit.
        """

    async def pull(
        self, source: ImageSource, reference: str, platform: Platform, *, name: str, report: Report
    ) -> PulledImage:
        """Take in the image that `reference`, a tag or digest, means for `platform`; `name`, unless empty, is kept with
        it.

        Idempotent; what is here is not downloaded again, and what an interrupted pull has downloaded neither. Raises
        InvalidArgument (`CORRUPT_IMAGE`), ResourceExhausted, and what the source raises.
        """

    async def import_rootfs(
        self, archive: AsyncIterator[bytes], *, config: Mapping[str, object], platform: Platform = HERE, step: Step
    ) -> Image:
        """Make a one-layer image of a root filesystem tar, of whose making `step` is what the history tells; `config`
        becomes the `config` object of the image config."""

    async def commit(
        self, base_id: str, archive: AsyncIterator[bytes], *, config: Mapping[str, object], step: Step
    ) -> Image:
        """The image `base_id` with the layer of a tar on top; `config` becomes the `config` object of its config.
        Raises NotFound, and as `import_rootfs`."""

    async def get(self, image_id: str) -> Image:
        """Raises NotFound."""

    async def list(self) -> Sequence[Image]:
        """Every image, ordered by id."""

    async def remove(self, image_id: str) -> None:
        """Drop the image and each layer no other image uses. Idempotent: what is gone is gone."""

    async def push(self, target: ImageTarget, image_id: str, tag: str, *, report: Report) -> str:
        """Give the image to a registry; the digest of its manifest there. What the registry has is not sent again.
        Raises NotFound, FailedPrecondition (`LAYER_NOT_RECORDED`), DataLoss, ResourceExhausted, and what the target
        raises."""

    def layer_tar(self, diff_id: str) -> AbstractAsyncContextManager[LayerTar]:
        """A layer as the tar it came as, which stays here while the block runs. Raises NotFound, and
        FailedPrecondition (`LAYER_NOT_RECORDED`)."""

    async def disk_usage(self) -> int:
        """Bytes that all layers take, shared ones counted once."""
