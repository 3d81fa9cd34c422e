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
from contextlib import aclosing, asynccontextmanager

import httpx

from common.errors import NotFound, PermissionDenied, SlipwayError, Unauthenticated, Unavailable
from executor_service.registry.access import Access
from executor_service.registry.answers import refused, unreachable
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

_TIMEOUT = httpx.Timeout(30.0, connect=15.0)  # seconds without a byte
_ATTEMPTS = 6  # connections in a row that bring nothing
_RESOLVE_ATTEMPTS = 4  # of one manifest: somebody waits, and there may be another endpoint
_BACKOFF = 0.2  # seconds before the second one, doubled each time
_MAX_BACKOFF = 10.0  # seconds
_MAX_REDIRECTS = 5
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_CHUNK = 1 << 16  # bytes


@asynccontextmanager
async def registry_client(endpoints: Sequence[Endpoint]) -> AsyncIterator[RegistryClient]:
    """The credentials of an endpoint are shown to that and to its token server, never to where they redirect to."""
    async with httpx.AsyncClient(
        timeout=_TIMEOUT, follow_redirects=True, max_redirects=_MAX_REDIRECTS, trust_env=False
    ) as http:
        yield RegistryClient(http, endpoints)


class RegistryClient:
    """`ImageSource` over HTTP."""

    def __init__(self, http: httpx.AsyncClient, endpoints: Sequence[Endpoint]) -> None:
        self._http = http
        self._endpoints = endpoints
        self._current = endpoints[0]
        self._accesses: dict[Endpoint, Access] = {}

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
                await self._wait(self._current, attempt, repr(error), unheard, attempts=_RESOLVE_ATTEMPTS)
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
            await self._wait(endpoint, attempt, reason, on_retry)
            attempt += 1

    async def _wait(
        self,
        endpoint: Endpoint,
        attempt: int,
        reason: str,
        on_retry: Callable[[Retry], None],
        *,
        attempts: int = _ATTEMPTS,
    ) -> None:
        if attempt >= attempts:
            raise unreachable(endpoint, reason)
        delay = min(_BACKOFF * 2 ** (attempt - 1), _MAX_BACKOFF)
        on_retry(Retry(attempt=attempt + 1, delay=delay, reason=reason))
        await asyncio.sleep(delay)

    @asynccontextmanager
    async def _get(self, endpoint: Endpoint, below: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """A good answer. Raises httpx.TransportError for one that may be better the next time."""
        access = self._accesses.setdefault(endpoint, Access(self._http, endpoint))
        scheme = "http" if endpoint.plain_http else "https"
        url = f"{scheme}://{endpoint.host}/v2/{endpoint.repository}/{below}"
        for asked in (False, True):
            try:
                async with self._http.stream("GET", url, headers=headers | access.headers) as response:
                    if response.status_code == httpx.codes.UNAUTHORIZED and not asked:
                        challenge = response.headers.get_list("WWW-Authenticate")
                    elif response.status_code in _PASSING:
                        raise httpx.RemoteProtocolError(f"HTTP status {response.status_code}")
                    elif response.is_success:
                        yield response
                        return
                    else:
                        raise refused(endpoint, response.status_code, below)
            except httpx.TooManyRedirects as error:
                raise unreachable(endpoint, f"more than {_MAX_REDIRECTS} redirects") from error
            await access.answer(challenge)


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
