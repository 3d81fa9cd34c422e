"""The images of a node, and the ways they come to it and leave it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from api_service.deadline import Deadline

# Why a registry is UNAVAILABLE to a node that is not.
OF_REGISTRIES = frozenset(
    {
        "REGISTRY_RATE_LIMITED",
        "REGISTRY_REDIRECTS",
        "REGISTRY_TOO_SLOW",
        "REGISTRY_UNAVAILABLE",
        "UPLOAD_ELSEWHERE",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryCredentials:
    """A name and password, a refresh token, or a bearer token; all empty: nothing is shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEndpoint:
    """`host` with its port, if any; `repository` is `library/busybox`; `credentials` are for nobody else."""

    host: str
    repository: str
    plain_http: bool = False
    credentials: RegistryCredentials = field(default_factory=RegistryCredentials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Go's names; an empty `architecture` is the node's."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSpec:
    """`reference` is a tag or a manifest's digest; `name` is kept with the image on the node, unless it is empty."""

    endpoints: tuple[RegistryEndpoint, ...]
    reference: str
    platform: Platform
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSpec:
    """`config` is the `config` object of the image's configuration, JSON; `comment` may be empty; `created` in
    nanoseconds since the epoch: nodes that are told the same make the same image."""

    config: bytes
    platform: Platform
    comment: str
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitSpec:
    """`config` is the `config` object of the image's configuration, JSON."""

    container_id: str
    config: bytes
    author: str
    comment: str
    pause: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSpec:
    endpoint: RegistryEndpoint
    image_id: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedImage:
    """`digest` is the manifest's."""

    digest: str


class LayerPhase(StrEnum):
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    UNPACKING = "unpacking"
    EXISTS = "exists"
    DONE = "done"
    PACKING = "packing"
    UPLOADING = "uploading"
    MOUNTED = "mounted"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """`digest` is the compressed layer's, or the diff id of one that is pushed; `done` and `total` are bytes; `retries`
    counts broken connections."""

    digest: str
    phase: LayerPhase
    done: int
    total: int
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedName:
    """`busybox`, `latest` and `docker.io/library/busybox:latest`."""

    repository: str
    tag: str
    canonical: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedImage:
    """Which image, and by which names an archive is to have it."""

    image_id: str
    names: tuple[SavedName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """`config` is the image's configuration, JSON, byte for byte; `names` are what its archive carried."""

    id: str
    config: bytes
    layers: tuple[str, ...]
    size: int
    names: tuple[str, ...]
    layer_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """`digest` is the manifest's, `index_digest` that of the index it was chosen from, if any."""

    image: StoredImage
    digest: str
    index_digest: str = ""


class NodeImages(Protocol):
    """Every method raises as those of ExecutorClient do, and the errors named with it."""

    async def load(
        self, platform: Platform, chunks: AsyncIterator[bytes], *, deadline: Deadline
    ) -> Sequence[StoredImage]:
        """The images of an archive that are for `platform`. Raises InvalidArgument (`CORRUPT_IMAGE`,
        `UNSUPPORTED_PLATFORM`) and ResourceExhausted."""

    async def import_image(
        self, spec: ImportSpec, chunks: AsyncIterator[bytes], *, deadline: Deadline
    ) -> StoredImage: ...

    async def commit(self, spec: CommitSpec, *, deadline: Deadline) -> StoredImage:
        """Raises NotFound, FailedPrecondition, InvalidArgument, ResourceExhausted."""

    def pull(self, spec: PullSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PulledImage]:
        """The layers' progress, then the image. Closing the answers ends the pull, unless another one is the same.
        Raises NotFound, PermissionDenied, InvalidArgument, ResourceExhausted, Unavailable (`REGISTRY_UNAVAILABLE`)."""

    def push(self, spec: PushSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PushedImage]:
        """The layers' progress, then the image. Closing the answers ends the push, unless another one is the same.
        Raises NotFound, PermissionDenied, FailedPrecondition, ResourceExhausted, Unavailable
        (`REGISTRY_UNAVAILABLE`)."""

    def save(self, images: Sequence[SavedImage], *, deadline: Deadline) -> AsyncGenerator[bytes]:
        """One archive of all. Raises NotFound, FailedPrecondition (`LAYER_NOT_RECORDED`), DataLoss."""

    async def get(self, image_id: str, *, deadline: Deadline) -> StoredImage:
        """Raises NotFound."""

    async def list(self, *, deadline: Deadline) -> Sequence[StoredImage]: ...

    async def remove(self, image_id: str, *, deadline: Deadline) -> None:
        """Raises FailedPrecondition while a container on the node uses it."""
