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
from pathlib import Path

import httpx

from common.errors import InvalidArgument, NotFound, PermissionDenied, SlipwayError, Unauthenticated, Unavailable
from executor_service.registry.answers import unreachable
from executor_service.registry.bodies import TooLargeError, paced, whole_body
from executor_service.registry.exchange import STALL, Exchange, open_http
from executor_service.registry.manifests import ACCEPTED, MAX_MANIFEST, chosen, is_index, parse_manifest
from executor_service.registry.source import (
    Descriptor,
    Endpoint,
    ImageSource,
    Manifest,
    OpenRegistry,
    Patience,
    Platform,
    Retry,
    unheard,
)
from executor_service.storage.refusals import corrupt_image

_RESOLVE_ATTEMPTS = 4  # of one manifest: somebody waits, and there may be another endpoint
_SIDE_BY_SIDE = 3  # blobs of one client: what a registry does slowly delays no pull from another
_WORTH = 1 << 16  # bytes; a connection that brings fewer has failed


@asynccontextmanager
async def registry_client(
    endpoints: Sequence[Endpoint], patience: Patience, *, certificates: Path | None = None, stall: float = STALL
) -> AsyncIterator[RegistryClient]:
    """`certificates`: the directory of those for registries. `stall`: seconds without progress."""
    async with open_http(endpoints, certificates=certificates, stall=stall) as http:
        yield RegistryClient(http, endpoints, patience, stall=stall)


class RegistryClient:
    """`ImageSource` over HTTP."""

    def __init__(
        self, http: httpx.AsyncClient, endpoints: Sequence[Endpoint], patience: Patience, *, stall: float = STALL
    ) -> None:
        # Only the last one is waited for at its own wish: before it, the next one is sooner.
        self._exchanges = [
            Exchange(http, each, patience=patience if each is endpoints[-1] else _hurried, stall=stall)
            for each in endpoints
        ]
        self._current = 0
        self._turns = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def resolve(self, reference: str, platform: Platform, deadline: float) -> Manifest:
        failures: list[SlipwayError] = []
        for place, exchange in enumerate(self._exchanges):
            self._current = place
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as limit:
                    return await _resolve(exchange, reference, platform, _extending(limit))
            except TimeoutError:
                failures.append(unreachable(exchange.endpoint, "it did not answer in time", reason="REGISTRY_TOO_SLOW"))
            except (NotFound, PermissionDenied, Unauthenticated, Unavailable) as error:
                failures.append(error)
        raise failures[-1]

    @asynccontextmanager
    async def blob(
        self, descriptor: Descriptor, offset: int = 0, on_retry: Callable[[Retry], None] = unheard
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._turns, aclosing(self._chunks(descriptor, offset, on_retry)) as chunks:
            yield chunks

    async def _chunks(
        self, descriptor: Descriptor, offset: int, on_retry: Callable[[Retry], None]
    ) -> AsyncGenerator[bytes]:
        """From the endpoint that knew the manifest, and from those behind it when it fails: what has come stays."""
        places = self._exchanges[self._current :]
        for place in places:
            try:
                async with aclosing(_chunks_of(place, descriptor, offset, on_retry)) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        yield chunk
                return
            except (NotFound, PermissionDenied, Unauthenticated, Unavailable):
                if place is places[-1]:
                    raise


def _extending(limit: asyncio.Timeout) -> Callable[[Retry], None]:
    """The registry is left alone for as long as it wishes and somebody waits: that is no time it had to answer in."""

    def extend(retry: Retry) -> None:
        if (when := limit.when()) is not None:
            limit.reschedule(when + retry.delay)

    return extend


async def _resolve(
    exchange: Exchange, reference: str, platform: Platform, on_retry: Callable[[Retry], None]
) -> Manifest:
    content, media_type = await _manifest(exchange, reference, on_retry)
    index_digest = ""
    if is_index(content, media_type):
        index_digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        inner = chosen(content, platform)
        if inner.size > MAX_MANIFEST:
            raise corrupt_image(f"manifest {inner.digest}: {inner.size} bytes; the limit is {MAX_MANIFEST}")
        content, media_type = await _manifest(exchange, inner.digest, on_retry)
        if len(content) != inner.size:
            raise corrupt_image(f"manifest {inner.digest}: {len(content)} bytes, the index says {inner.size}")
        if is_index(content, media_type):
            raise InvalidArgument(
                f"index {index_digest}: what it has for this platform, {inner.digest}, is an index too; pull that one "
                "by its digest, or push an index of manifests",
                reason="UNSUPPORTED_MANIFEST",
            )
    return dataclasses.replace(parse_manifest(content, media_type), index_digest=index_digest)


async def _manifest(exchange: Exchange, reference: str, on_retry: Callable[[Retry], None]) -> tuple[bytes, str]:
    below, accepted = f"manifests/{reference}", {"Accept": ", ".join(ACCEPTED)}
    for attempt in range(1, _RESOLVE_ATTEMPTS + 1):
        try:
            async with exchange.send("GET", exchange.url(below), what=below, headers=accepted) as response:
                content = await whole_body(response, limit=MAX_MANIFEST, patience=exchange.stall)
                media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            break
        except TooLargeError as error:
            raise corrupt_image(f"manifest {reference}: more than {MAX_MANIFEST} bytes") from error
        except httpx.TransportError as error:
            await exchange.back_off(attempt, error, on_retry, attempts=_RESOLVE_ATTEMPTS)
    _check_digest(reference, content)
    return content, media_type


async def _chunks_of(
    exchange: Exchange, descriptor: Descriptor, offset: int, on_retry: Callable[[Retry], None]
) -> AsyncGenerator[bytes]:
    below, attempt = f"blobs/{descriptor.digest}", 1
    while offset < descriptor.size:
        begun = offset
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            async with exchange.send("GET", exchange.url(below), what=below, headers=headers) as response:
                skip = _to_skip(response, offset)
                async with aclosing(paced(response, patience=exchange.stall)) as chunks:
                    async for chunk in chunks:
                        fresh = chunk[skip:]
                        skip = max(0, skip - len(chunk))
                        if fresh:
                            offset += len(fresh)
                            yield fresh
            if offset >= descriptor.size:
                return
            raise httpx.RemoteProtocolError(f"it sent {offset} of {descriptor.size} bytes")
        except httpx.TransportError as error:
            if offset - begun >= _WORTH:
                attempt = 1
            await exchange.back_off(attempt, error, on_retry)
        attempt += 1


def _to_skip(response: httpx.Response, offset: int) -> int:
    """Bytes at the beginning of the body that are here already. Raises httpx.RemoteProtocolError."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return offset
    sent = response.headers.get("Content-Range", "")
    if sent and not sent.startswith(f"bytes {offset}-"):
        raise httpx.RemoteProtocolError(f"asked for the bytes from {offset} on, it sends {sent[:60]!r}")
    return 0


def _check_digest(reference: str, content: bytes) -> None:
    algorithm, colon, stated = reference.partition(":")
    if colon and hashlib.new(algorithm, content, usedforsecurity=True).hexdigest() != stated:
        raise corrupt_image(f"manifest {reference}: what the registry sent has another digest; push the image again")


def _hurried() -> float:
    return 0.0


_: type[ImageSource] = RegistryClient
__: OpenRegistry = registry_client
