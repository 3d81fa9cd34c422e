"""One repository of a registry over HTTP: manifests and blobs.

Endpoints are tried in their order when a reference is resolved; blobs come from the one that knew it, or
those behind it. Sources: OCI distribution spec, https://distribution.github.io/distribution/spec/auth/token/, RFC 9110
(Range).
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import httpx

from common.errors import NotFound, PermissionDenied, SlipwayError, Unauthenticated, Unavailable
from executor_service.registry.answers import unreachable
from executor_service.registry.exchange import Exchange, back_off, open_http
from executor_service.registry.manifests import ACCEPTED, MAX_MANIFEST, chosen, is_index, parse_manifest
from executor_service.registry.source import (
    Descriptor,
    Endpoint,
    ImageSource,
    Manifest,
    OpenRegistry,
    Platform,
    Retry,
    unheard,
)
from executor_service.storage.refusals import corrupt_image

_RESOLVE_ATTEMPTS = 4  # of one manifest: somebody waits, and there may be another endpoint
_CHUNK = 1 << 16  # bytes


@asynccontextmanager
async def registry_client(
    endpoints: Sequence[Endpoint], *, certificates: Path | None = None
) -> AsyncIterator[RegistryClient]:
    """`certificates`: the directory of those for registries."""
    async with open_http(endpoints, certificates=certificates) as http:
        yield RegistryClient(http, endpoints)


class RegistryClient:
    """`ImageSource` over HTTP."""

    def __init__(self, http: httpx.AsyncClient, endpoints: Sequence[Endpoint]) -> None:
        self._http = http
        self._endpoints = endpoints
        self._current = endpoints[0]
        self._exchanges: dict[Endpoint, Exchange] = {}

    async def resolve(self, reference: str, platform: Platform, deadline: float) -> Manifest:
        failures: list[SlipwayError] = []
        for endpoint in self._endpoints:
            self._current = endpoint
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    return await self._resolve(reference, platform)
            except TimeoutError:
                failures.append(unreachable(endpoint, "it did not answer in time"))
            except (NotFound, PermissionDenied, Unauthenticated, Unavailable) as error:
                failures.append(error)
        raise failures[-1]

    @asynccontextmanager
    async def blob(
        self, descriptor: Descriptor, offset: int = 0, on_retry: Callable[[Retry], None] = unheard
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with aclosing(self._chunks(descriptor, offset, on_retry)) as chunks:
            yield chunks

    async def _resolve(self, reference: str, platform: Platform) -> Manifest:
        content, media_type = await self._manifest(reference)
        index_digest = ""
        if is_index(content, media_type):
            index_digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            inner = chosen(content, platform)
            content, media_type = await self._manifest(inner.digest)
            if len(content) != inner.size:
                raise corrupt_image(f"manifest {inner.digest}: {len(content)} bytes, the index says {inner.size}")
        return dataclasses.replace(parse_manifest(content, media_type), index_digest=index_digest)

    async def _manifest(self, reference: str) -> tuple[bytes, str]:
        for attempt in range(1, _RESOLVE_ATTEMPTS + 1):
            try:
                async with self._get(
                    self._current, f"manifests/{reference}", {"Accept": ", ".join(ACCEPTED)}
                ) as response:
                    content = await _bounded(response)
                    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
                break
            except httpx.TransportError as error:
                await back_off(self._current, attempt, repr(error), unheard, attempts=_RESOLVE_ATTEMPTS)
        _check_digest(reference, content)
        return content, media_type

    async def _chunks(
        self, descriptor: Descriptor, offset: int, on_retry: Callable[[Retry], None]
    ) -> AsyncGenerator[bytes]:
        """From the endpoint that knew the manifest, and from those behind it when it fails: what has come stays."""
        places = self._endpoints[self._endpoints.index(self._current) :]
        for place in places:
            try:
                async with aclosing(self._chunks_of(place, descriptor, offset, on_retry)) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        yield chunk
                return
            except (NotFound, PermissionDenied, Unauthenticated, Unavailable):
                if place is places[-1]:
                    raise

    async def _chunks_of(
        self, endpoint: Endpoint, descriptor: Descriptor, offset: int, on_retry: Callable[[Retry], None]
    ) -> AsyncGenerator[bytes]:
        attempt = 1
        while offset < descriptor.size:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
            try:
                async with self._get(endpoint, f"blobs/{descriptor.digest}", headers) as response:
                    skip = offset if response.status_code == httpx.codes.OK else 0
                    async for chunk in response.aiter_raw(_CHUNK):
                        fresh = chunk[skip:]
                        skip = max(0, skip - len(chunk))
                        if fresh:
                            offset += len(fresh)
                            attempt = 1
                            yield fresh
                if offset >= descriptor.size:
                    return
                reason = "the connection ended early"
            except httpx.TransportError as error:
                reason = repr(error)
            await back_off(endpoint, attempt, reason, on_retry)
            attempt += 1

    def _get(
        self, endpoint: Endpoint, below: str, headers: dict[str, str]
    ) -> AbstractAsyncContextManager[httpx.Response]:
        exchange = self._exchanges.setdefault(endpoint, Exchange(self._http, endpoint))
        return exchange.send("GET", exchange.url(below), what=below, headers=headers)


async def _bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_MANIFEST:
            raise corrupt_image(f"manifest: more than {MAX_MANIFEST} bytes")
    return bytes(content)


def _check_digest(reference: str, content: bytes) -> None:
    algorithm, colon, stated = reference.partition(":")
    if colon and hashlib.new(algorithm, content, usedforsecurity=True).hexdigest() != stated:
        raise corrupt_image(f"manifest {reference}: what the registry sent has another digest")


_: type[ImageSource] = RegistryClient
__: OpenRegistry = registry_client
