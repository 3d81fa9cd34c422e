"""Requests to one endpoint of a registry, which show it what it asks for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from executor_service.registry.access import Access
from executor_service.registry.answers import refused, unreachable
from executor_service.registry.certificates import tls_context
from executor_service.registry.source import Endpoint, Retry
from executor_service.storage.threads import finish

_TIMEOUT = httpx.Timeout(30.0, connect=15.0)  # seconds without a byte
_MAX_REDIRECTS = 5
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_READS = frozenset({"GET", "HEAD"})  # what may be asked for elsewhere
_BACKOFF = 0.2  # seconds before the second one, doubled each time
_MAX_BACKOFF = 10.0  # seconds
ATTEMPTS = 6  # connections in a row that bring nothing


@asynccontextmanager
async def open_http(endpoints: Sequence[Endpoint], *, certificates: Path | None) -> AsyncIterator[httpx.AsyncClient]:
    """`certificates`: the directory of those for registries; they count for these endpoints, not for where these lead
    to. Raises FailedPrecondition."""
    hosts = {endpoint.host for endpoint in endpoints if not endpoint.plain_http}
    contexts = await finish(lambda: {host: tls_context(certificates, host) for host in {"", *hosts}})
    async with httpx.AsyncClient(
        verify=contexts[""],
        mounts={f"https://{host}": httpx.AsyncHTTPTransport(verify=contexts[host]) for host in hosts},
        timeout=_TIMEOUT,
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        trust_env=False,
    ) as http:
        yield http


class Exchange:
    """The credentials of the endpoint are shown to it and to its token server, never to where they redirect to."""

    def __init__(self, http: httpx.AsyncClient, endpoint: Endpoint) -> None:
        self._http = http
        self._access = Access(http, endpoint)
        self.endpoint = endpoint

    def url(self, below: str) -> httpx.URL:
        """Of something below the repository, `manifests/latest`."""
        scheme = "http" if self.endpoint.plain_http else "https"
        return httpx.URL(f"{scheme}://{self.endpoint.host}/v2/{self.endpoint.repository}/{below}")

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: httpx.URL,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        expected: Collection[int] = (),
    ) -> AsyncIterator[httpx.Response]:
        """A good answer, or one with an `expected` status. `what` is asked for, in words. Raises httpx.TransportError
        for one that may be better the next time, PermissionDenied, NotFound, Unavailable."""
        for asked in (False, True):
            try:
                async with self._http.stream(
                    method,
                    url,
                    headers={**(headers or {}), **self._access.headers},
                    content=content,
                    follow_redirects=method in _READS,
                ) as response:
                    if response.status_code == httpx.codes.UNAUTHORIZED and not asked:
                        challenge = response.headers.get_list("WWW-Authenticate")
                    elif response.is_success or response.status_code in expected:
                        yield response
                        return
                    elif response.status_code in _PASSING:
                        raise httpx.RemoteProtocolError(f"HTTP status {response.status_code}")
                    else:
                        raise refused(self.endpoint, response.status_code, what)
            except httpx.TooManyRedirects as error:
                raise unreachable(self.endpoint, f"more than {_MAX_REDIRECTS} redirects") from error
            except ssl.SSLError as error:
                # What a registry has against our certificate comes after the handshake, past the client's own errors.
                raise unreachable(self.endpoint, f"TLS: {error.reason or error}") from error
            await self._access.answer(challenge)


async def back_off(
    endpoint: Endpoint, attempt: int, reason: str, on_retry: Callable[[Retry], None], *, attempts: int = ATTEMPTS
) -> None:
    """Wait before the next attempt; the `attempt`-th has failed. Raises Unavailable when that was the last."""
    if attempt >= attempts:
        raise unreachable(endpoint, reason)
    delay = min(_BACKOFF * 2 ** (attempt - 1), _MAX_BACKOFF)
    on_retry(Retry(attempt=attempt + 1, delay=delay, reason=reason))
    await asyncio.sleep(delay)
