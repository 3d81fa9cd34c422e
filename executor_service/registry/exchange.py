"""Requests to one endpoint of a registry, which show it what it asks for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from executor_service.registry.access import Access
from executor_service.registry.answers import PASSING, BusyError, downgraded, given_up, refused, told, unreachable
from executor_service.registry.bodies import IDENTITY, MAX_REDIRECTS, ToPlainHTTPError, answered
from executor_service.registry.certificates import tls_context
from executor_service.registry.challenges import parse_challenges
from executor_service.registry.source import Endpoint, Patience, Retry
from executor_service.threads import finish

STALL = 30.0  # seconds without progress, after which a connection is given up
_CONNECT = 15.0  # seconds
_READS = frozenset({"GET", "HEAD"})  # what may be asked for elsewhere
_BACKOFF = 0.2  # seconds before the second attempt, doubled each time
_MAX_BACKOFF = 10.0  # seconds
_ANSWERS = 3  # to challenges for one request, when each was somebody else's
_WRITTEN = 1 << 16  # bytes handed over at a time: each has the time of a stall
ATTEMPTS = 6  # connections in a row that bring nothing


@asynccontextmanager
async def open_http(
    endpoints: Sequence[Endpoint], *, certificates: Path | None, stall: float
) -> AsyncIterator[httpx.AsyncClient]:
    """`certificates`: the directory of those for registries; they count for these endpoints, not for where these lead
    to. `stall`: seconds without a byte. Raises FailedPrecondition."""
    hosts = {endpoint.host for endpoint in endpoints if not endpoint.plain_http}
    contexts = await finish(lambda: {host: tls_context(certificates, host) for host in {"", *hosts}})
    async with httpx.AsyncClient(
        verify=contexts[""],
        mounts={f"https://{host}": httpx.AsyncHTTPTransport(verify=contexts[host]) for host in hosts},
        timeout=httpx.Timeout(stall, connect=min(stall, _CONNECT)),
        trust_env=False,
    ) as http:
        yield http


class Exchange:
    """The credentials of the endpoint are shown to it and to its token server, never to where they redirect to.

    `patience`: how long the registry may make us wait; `stall`: seconds without progress.
    """

    def __init__(
        self, http: httpx.AsyncClient, endpoint: Endpoint, *, patience: Patience, stall: float = STALL
    ) -> None:
        self._http = http
        self._access = Access(http, endpoint, patience=stall)
        self._patience = patience
        self.stall = stall
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
        length = {"Content-Length": str(len(content))} if content else {}
        answers = 0
        while True:
            shown = self._access.headers
            request = self._http.build_request(
                method,
                url,
                headers={**IDENTITY, **length, **(headers or {}), **shown},
                content=_pieces(content) if content else None,
            )
            try:
                async with answered(self._http, request, follow=method in _READS, patience=self.stall) as response:
                    if response.status_code == httpx.codes.UNAUTHORIZED and answers < _ANSWERS:
                        challenge = response.headers.get_list("WWW-Authenticate")
                    elif response.is_success or response.status_code in expected:
                        yield response
                        return
                    elif response.status_code in PASSING:
                        raise BusyError(response)
                    else:
                        raise refused(self.endpoint, self._meaning(response), what)
            except httpx.TooManyRedirects as error:
                why = f"{what}: more than {MAX_REDIRECTS} redirects"
                raise unreachable(self.endpoint, why, reason="REGISTRY_REDIRECTS") from error
            except ToPlainHTTPError as error:
                raise downgraded(self.endpoint, f"{what}: {error}") from error
            except ssl.SSLError as error:
                # What a registry has against our certificate comes after the handshake, past the client's own errors.
                raise unreachable(self.endpoint, f"TLS: {error.reason or error}") from error
            answers += _ANSWERS if await self._access.answer(challenge, shown=shown) else 1

    def _meaning(self, response: httpx.Response) -> int:
        """401 is also said to somebody who is known and may not: that is 403."""
        challenges = parse_challenges(response.headers.get_list("WWW-Authenticate"))
        lacks = any(each.parameters.get("error") == "insufficient_scope" for each in challenges)
        shown = self.endpoint.credentials
        known = bool(shown.username or shown.identity_token)
        return httpx.codes.FORBIDDEN if lacks and known else response.status_code

    async def back_off(
        self,
        attempt: int,
        failure: httpx.TransportError,
        on_retry: Callable[[Retry], None],
        *,
        attempts: int = ATTEMPTS,
    ) -> None:
        """Wait before the next attempt, as long as the registry wishes; the `attempt`-th has failed. Raises Unavailable
        when that was the last, or nobody waits that long."""
        wished = (failure.retry_after or 0.0) if isinstance(failure, BusyError) else 0.0
        if attempt >= attempts or wished > self._patience():
            raise given_up(self.endpoint, failure)
        delay = max(wished, min(_BACKOFF * 2 ** (attempt - 1), _MAX_BACKOFF))
        on_retry(Retry(attempt=attempt + 1, delay=delay, reason=told(failure)))
        await asyncio.sleep(delay)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _WRITTEN):
        yield content[start : start + _WRITTEN]
