"""Where images come from and go to: what the storage knows of a registry.

Sources: OCI distribution spec, OCI image spec "descriptor.md", "manifest.md".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """`size` bytes with the `digest` (`sha256:<hex>`)."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Go's names, `linux`, `amd64`; `variant` may be empty."""

    os: str
    architecture: str
    variant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A name and password, a refresh token, or a bearer token; all empty: nothing is shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`host` with its port, if any; `repository` is `library/busybox`; `credentials` are for nobody else."""

    host: str
    repository: str
    plain_http: bool = False
    credentials: Credentials = field(default_factory=Credentials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image's manifest, verified: `content` has the digest and size of `descriptor`; `layers` lowest first.
    `index_digest`: of the index it was chosen from, empty when there was none."""

    descriptor: Descriptor
    content: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]
    index_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The `attempt`-th connection follows after `delay` seconds, because of `reason`."""

    attempt: int
    delay: float
    reason: str


def unheard(_: Retry) -> None:
    """Nobody wants to know."""


class ImageSource(Protocol):
    """One repository to read from. Every method raises the errors of `common.errors`."""

    async def resolve(self, reference: str, platform: Platform, deadline: float) -> Manifest:
        """The manifest of a tag or digest, of an index the one for `platform`. `deadline` in seconds of
        `time.monotonic()`."""

    def blob(
        self, descriptor: Descriptor, offset: int = 0, on_retry: Callable[[Retry], None] = unheard
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes from `offset` on, whatever they hash to: the caller verifies. A broken connection is made again.
        Of many that are asked for at once, some wait for their turn."""


Patience = Callable[[], float]
"""For how many seconds from now somebody still wants the outcome."""

OpenRegistry = Callable[[Sequence[Endpoint], Patience], AbstractAsyncContextManager[ImageSource]]
"""Makes a source of one repository, reached through any of the endpoints."""


class Presence(Enum):
    """`MOUNTED`: the registry took it from another of its repositories just now."""

    MISSING = auto()
    EXISTS = auto()
    MOUNTED = auto()


Read = Callable[[int, int], Awaitable[bytes]]
"""So many bytes from an offset on."""


def read_from(data: bytes) -> Read:
    async def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    return read


class ImageTarget(Protocol):
    """One repository to write to. Every method raises the errors of `common.errors`."""

    async def find(self, digest: str) -> Presence:
        """Whether it has the blob, from now on if need be."""

    async def upload(
        self,
        descriptor: Descriptor,
        read: Read,
        on_sent: Callable[[int], None] = lambda _: None,
        on_retry: Callable[[Retry], None] = unheard,
    ) -> None:
        """A blob; `on_sent` hears how many bytes are there. A broken connection is made again, and goes on."""

    async def put_manifest(self, tag: str, media_type: str, content: bytes) -> None: ...


OpenTarget = Callable[[Endpoint, Patience], AbstractAsyncContextManager[ImageTarget]]
"""Makes a target of one repository."""
