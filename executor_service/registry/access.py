"""Showing a registry who asks: Basic, and Bearer with a token of its token server.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence

import httpx

from common.errors import PermissionDenied
from executor_service.registry.answers import PASSING, BusyError, downgraded, refused, unreachable
from executor_service.registry.bodies import (
    IDENTITY,
    MAX_REDIRECTS,
    TooLargeError,
    ToPlainHTTPError,
    answered,
    whole_body,
)
from executor_service.registry.challenges import parse_challenges
from executor_service.registry.source import Endpoint

_MAX_ANSWER = 256 << 10  # bytes of a token server's answer
_MAX_SCOPES = 16  # resources that one token is for; those of mounts add up
_Value = str | int | float | bool | None  # of httpx's own
_TOKEN = re.compile(r"[!-~]{1,65536}")


class Access:
    """Of one endpoint. `headers` go with every request to it. `patience`: seconds without progress."""

    def __init__(self, http: httpx.AsyncClient, endpoint: Endpoint, *, patience: float) -> None:
        self._http = http
        self._endpoint = endpoint
        self._credentials = endpoint.credentials
        self._patience = patience
        self._answering = asyncio.Lock()
        self._scopes: dict[str, dict[str, None]] = {}  # actions by resource, all that was ever asked for
        self.headers: dict[str, str] = {}
        if token := endpoint.credentials.registry_token:
            self.headers = {"Authorization": f"Bearer {token}"}

    async def answer(self, challenges: Sequence[str], *, shown: Mapping[str, str]) -> bool:
        """Get what the registry asks for, to whom `shown` was not enough. False when somebody else got it meanwhile,
        which may have been good for him alone. Raises PermissionDenied, Unauthenticated, Unavailable,
        httpx.TransportError."""
        async with self._answering:
            for challenge in parse_challenges(challenges):
                if challenge.scheme == "bearer":
                    if not self._widened(challenge.parameters.get("scope", "")) and self.headers is not shown:
                        return False
                    self.headers = {"Authorization": f"Bearer {await self._token(challenge.parameters)}"}
                    return True
                if challenge.scheme == "basic" and self._credentials.username:
                    self.headers = {"Authorization": self._basic()}
                    return True
        raise refused(self._endpoint, 401, "login")

    def _widened(self, scope: str) -> bool:
        """Whether no token was asked for all of this yet. One token has to do for requests side by side that want
        different things, so each new one is for all that was wanted before as well."""
        before = sum(map(len, self._scopes.values()))
        for each in scope.split()[:_MAX_SCOPES]:
            resource, _, actions = each.rpartition(":")
            self._scopes.setdefault(resource, {}).update(dict.fromkeys(actions.split(",")))
        while len(self._scopes) > _MAX_SCOPES:
            del self._scopes[next(iter(self._scopes))]
        return sum(map(len, self._scopes.values())) != before

    def _basic(self) -> str:
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    async def _token(self, parameters: Mapping[str, str]) -> str:
        realm = parameters.get("realm", "")
        if not realm.startswith(("https://", "http://") if self._endpoint.plain_http else "https://"):
            raise PermissionDenied(
                f"registry {self._endpoint.host}: its token server {realm[:100]!r} is not https",
                reason="INSECURE_REALM",
            )
        try:
            request, follow = self._token_request(realm, parameters)
            async with answered(self._http, request, follow=follow, patience=self._patience) as response:
                if response.status_code in PASSING:
                    raise BusyError(response)
                if not response.is_success:
                    raise refused(self._endpoint, response.status_code, "login")
                content = await whole_body(response, limit=_MAX_ANSWER, patience=self._patience)
        except httpx.TooManyRedirects as error:
            why = f"its token server: more than {MAX_REDIRECTS} redirects"
            raise unreachable(self._endpoint, why, reason="REGISTRY_REDIRECTS") from error
        except ToPlainHTTPError as error:
            raise downgraded(self._endpoint, f"its token server: {error}") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise unreachable(self._endpoint, f"its token server: {realm[:100]!r} is no address") from error
        except TooLargeError as error:
            raise unreachable(self._endpoint, f"its token server sends more than {_MAX_ANSWER} bytes") from error
        if (token := _token_in(content)) is None:
            raise unreachable(self._endpoint, "its token server sends no token")
        return token

    def _token_request(self, realm: str, parameters: Mapping[str, str]) -> tuple[httpx.Request, bool]:
        """And whether it may be sent on elsewhere. Raises httpx.InvalidURL, UnicodeError."""
        service = [("service", parameters["service"])] if "service" in parameters else []
        scopes = [f"{resource}:{','.join(actions)}" for resource, actions in self._scopes.items()]
        if not self._credentials.identity_token:
            # Each scope on its own, as the specification has it for GET.
            query: list[tuple[str, _Value]] = [*service, *(("scope", each) for each in scopes)]
            headers = IDENTITY | ({"Authorization": self._basic()} if self._credentials.username else {})
            url = httpx.URL(realm)
            return self._http.build_request("GET", url.copy_merge_params(query), headers=headers), True
        form = {"grant_type": "refresh_token", "client_id": "slipway", **dict(service)}
        form |= {"scope": " ".join(scopes)} if scopes else {}
        form["refresh_token"] = self._credentials.identity_token
        return self._http.build_request("POST", realm, data=form, headers=IDENTITY), False  # 307 would send it on


def _token_in(content: bytes) -> str | None:
    try:
        document = json.loads(content)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        return None
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None
