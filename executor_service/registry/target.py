"""One repository of a registry to write to: blobs in pieces, then manifests.

Sources: OCI distribution spec, "Push"; https://distribution.github.io/distribution/spec/api/ (Content-Range of pieces).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx

from common.errors import SlipwayError, Unavailable
from executor_service.registry.answers import unreachable
from executor_service.registry.exchange import STALL, Exchange, open_http
from executor_service.registry.source import (
    Descriptor,
    Endpoint,
    ImageTarget,
    OpenTarget,
    Patience,
    Presence,
    Read,
    Retry,
    unheard,
)

T = TypeVar("T")

_PIECE = 8 << 20  # bytes of one request
_REMEMBERED = 4096  # blobs
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
_LOST = frozenset({404, 416})  # statuses of an upload that the registry does not know, or not as far as we do


class _LostError(httpx.TransportError):
    """The registry has forgotten the upload, or some of it."""


class RegistryTargets:
    """`OpenTarget` over HTTP. Remembers which repository got a blob, so that a further one can have it from there."""

    def __init__(self, *, certificates: Path | None = None, stall: float = STALL) -> None:
        """`certificates`: the directory of those for registries. `stall`: seconds without progress."""
        self._certificates = certificates
        self._stall = stall
        self._holders: OrderedDict[tuple[str, str], str] = OrderedDict()

    @asynccontextmanager
    async def __call__(self, endpoint: Endpoint, patience: Patience) -> AsyncIterator[RegistryTarget]:
        async with open_http([endpoint], certificates=self._certificates, stall=self._stall) as http:
            exchange = Exchange(http, endpoint, patience=patience, stall=self._stall)
            yield RegistryTarget(exchange, self._holders)


class RegistryTarget:
    """`ImageTarget`. `holders`: the repository that has a blob, by host and digest, the oldest first."""

    def __init__(self, exchange: Exchange, holders: OrderedDict[tuple[str, str], str]) -> None:
        self._exchange = exchange
        self._endpoint = exchange.endpoint
        self._holders = holders

    async def find(self, digest: str) -> Presence:
        if await self._retried(lambda: self._has(digest)):
            self._remember(digest)
            return Presence.EXISTS
        holder = self._holders.get((self._endpoint.host, digest), self._endpoint.repository)
        if holder != self._endpoint.repository and await self._retried(lambda: self._mount(digest, holder)):
            return Presence.MOUNTED
        return Presence.MISSING

    async def upload(
        self,
        descriptor: Descriptor,
        read: Read,
        on_sent: Callable[[int], None] = lambda _: None,
        on_retry: Callable[[Retry], None] = unheard,
    ) -> None:
        place: httpx.URL | None = None
        offset = furthest = 0
        attempt = 1
        while True:
            try:
                if place is None:
                    place, offset = await self._begin(), 0
                while offset < descriptor.size:
                    piece = await read(offset, min(_PIECE, descriptor.size - offset))
                    place = await self._append(place, offset, piece)
                    offset += len(piece)
                    on_sent(offset)
                    if offset > furthest:
                        furthest, attempt = offset, 1
                await self._end(place, descriptor.digest)
                self._remember(descriptor.digest)
                return
            except httpx.TransportError as error:
                await self._exchange.back_off(attempt, error, on_retry)
                attempt += 1
                place, offset = await self._resumed(place, descriptor.size)

    async def put_manifest(self, tag: str, media_type: str, content: bytes) -> None:
        async def put() -> str:
            async with self._exchange.send(
                "PUT",
                self._exchange.url(f"manifests/{tag}"),
                what=f"manifests/{tag}",
                headers={"Content-Type": media_type},
                content=content,
            ) as response:
                return str(response.headers.get("Docker-Content-Digest", ""))

        stored = await self._retried(put)
        if stored and stored != f"sha256:{hashlib.sha256(content).hexdigest()}":
            raise unreachable(self._endpoint, f"it has stored another manifest than was sent, {stored[:80]!r}")

    async def _has(self, digest: str) -> bool:
        url = self._exchange.url(f"blobs/{digest}")
        async with self._exchange.send("HEAD", url, what=f"blobs/{digest}", expected=[404]) as response:
            return response.is_success

    async def _mount(self, digest: str, repository: str) -> bool:
        url = self._exchange.url("blobs/uploads/").copy_merge_params({"mount": digest, "from": repository})
        # 202 begins an upload instead; that one is left to the registry, which ends it in time.
        async with self._exchange.send("POST", url, what="blobs/uploads", expected=[401, 403, 404]) as response:
            return response.status_code == httpx.codes.CREATED

    async def _begin(self) -> httpx.URL:
        url = self._exchange.url("blobs/uploads/")
        async with self._exchange.send("POST", url, what="blobs/uploads") as response:
            return self._place(response)

    async def _append(self, place: httpx.URL, offset: int, piece: bytes) -> httpx.URL:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{offset}-{offset + len(piece) - 1}",
        }
        async with self._exchange.send(
            "PATCH", place, what="blobs/uploads", headers=headers, content=piece, expected=_LOST
        ) as response:
            if response.status_code in _LOST:
                raise _LostError(f"HTTP status {response.status_code}")
            return self._place(response)

    async def _end(self, place: httpx.URL, digest: str) -> None:
        url = place.copy_merge_params({"digest": digest})
        async with self._exchange.send("PUT", url, what="blobs/uploads", expected=_LOST) as response:
            if response.status_code in _LOST:
                raise _LostError(f"HTTP status {response.status_code}")

    async def _resumed(self, place: httpx.URL | None, size: int) -> tuple[httpx.URL | None, int]:
        """Where an upload goes on; None for a new one."""
        if place is None:
            return None, 0
        with suppress(httpx.TransportError, SlipwayError):
            async with self._exchange.send("GET", place, what="blobs/uploads") as response:
                known = _RANGE.fullmatch(response.headers.get("Range", ""))
                # `0-0` is what registries say of one byte and of none.
                if known is not None and 0 < int(known[1]) < size:
                    return self._place(response), int(known[1]) + 1
        return None, 0

    def _place(self, response: httpx.Response) -> httpx.URL:
        """Where the upload goes on. What is sent and shown there is for this registry alone."""
        own = self._exchange.url("")
        place = own.join(response.headers.get("Location", ""))
        if (place.scheme, place.host, place.port) != (own.scheme, own.host, own.port):
            raise Unavailable(
                f"registry {self._endpoint.host}: it wants the image to be sent to {place.host[:100]!r}; this is not "
                "done, push to that host by name",
                reason="UPLOAD_ELSEWHERE",
            )
        return place

    def _remember(self, digest: str) -> None:
        key = self._endpoint.host, digest
        self._holders[key] = self._endpoint.repository
        self._holders.move_to_end(key)
        if len(self._holders) > _REMEMBERED:
            self._holders.popitem(last=False)

    async def _retried(self, work: Callable[[], Awaitable[T]]) -> T:
        attempt = 1
        while True:
            try:
                return await work()
            except httpx.TransportError as error:
                await self._exchange.back_off(attempt, error, unheard)
            attempt += 1


_: type[ImageTarget] = RegistryTarget
__: OpenTarget = RegistryTargets()
