"""Answers of a registry that may be hostile: no redirect, head or body is waited for or read without a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx

from executor_service.registry.answers import TooSlowError

MAX_REDIRECTS = 5
IDENTITY = {"Accept-Encoding": "identity"}
_LEAST = 1024  # bytes a second; what is slower does not move


class TooLargeError(Exception):
    """A body has more bytes than were asked for."""


class ToPlainHTTPError(Exception):
    """A redirect leads from HTTPS to `host` without it."""

    def __init__(self, host: str) -> None:
        super().__init__(f"it redirects from HTTPS to {host[:100]!r} without it")


@asynccontextmanager
async def answered(
    http: httpx.AsyncClient, request: httpx.Request, *, follow: bool, patience: float
) -> AsyncIterator[httpx.Response]:
    """The answer, its body not read; of redirects, when `follow`, the last one's. httpx would read the bodies of the
    others to their end, which a server need not have. `patience`: seconds for the head of an answer, twice, and what
    the request's own body may take.

    Raises httpx.TransportError, httpx.TooManyRedirects, ToPlainHTTPError.
    """
    for _ in range(MAX_REDIRECTS + 1):
        patient = 2 * patience + int(request.headers.get("Content-Length", "0")) / _LEAST
        try:
            async with asyncio.timeout(patient):
                response = await http.send(request, stream=True, follow_redirects=False)
        except TimeoutError as error:
            raise TooSlowError(f"the head of an answer takes more than {patient:g} s") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise httpx.RemoteProtocolError("it redirects to what is no address") from error
        try:
            if not follow or response.next_request is None:
                yield response
                return
            if (request.url.scheme, response.next_request.url.scheme) == ("https", "http"):
                raise ToPlainHTTPError(response.next_request.url.host)
            request = response.next_request
        finally:
            await response.aclose()
    raise httpx.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects", request=request)


async def paced(response: httpx.Response, *, patience: float) -> AsyncGenerator[bytes]:
    """The body as it is sent. Raises httpx.TransportError, also when less comes than is worth waiting for. How long the
    caller takes does not count."""
    waited, received = 0.0, 0
    async with aclosing(response.aiter_raw()) as chunks:  # type: ignore[type-var]  # a generator, typed as an iterator
        while True:
            begun = time.monotonic()
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            waited += time.monotonic() - begun
            received += len(chunk)
            if waited >= patience:
                if received < _LEAST * waited:
                    raise TooSlowError(f"{received} bytes in {waited:.1f} s")
                waited, received = 0.0, 0
            yield chunk


async def whole_body(response: httpx.Response, *, limit: int, patience: float) -> bytes:
    """Raises httpx.TransportError, TooLargeError beyond `limit` bytes."""
    content = bytearray()
    async with aclosing(paced(response, patience=patience)) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > limit:
                raise TooLargeError
    return bytes(content)
