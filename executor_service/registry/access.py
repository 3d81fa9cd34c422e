"""Showing a registry who asks: Basic, and Bearer with a token of its token server.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

import httpx

from common.errors import PermissionDenied
from executor_service.registry.answers import refused, unreachable
from executor_service.registry.source import Endpoint

_PARAMETER = re.compile(r'([a-zA-Z]+)="([^"]*)"')


class Access:
    """Of one endpoint. `headers` go with every request to it."""

    def __init__(self, http: httpx.AsyncClient, endpoint: Endpoint) -> None:
        self._http = http
        self._endpoint = endpoint
        self._credentials = endpoint.credentials
        self.headers: dict[str, str] = {}
        if token := endpoint.credentials.registry_token:
            self.headers = {"Authorization": f"Bearer {token}"}

    async def answer(self, challenges: Sequence[str]) -> None:
        """Get what the registry asks for. Raises PermissionDenied, Unauthenticated, Unavailable."""
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                token = await self._token(dict(_PARAMETER.findall(rest)))
                self.headers = {"Authorization": f"Bearer {token}"}
                return
            if scheme.lower() == "basic" and self._credentials.username:
                self.headers = {"Authorization": self._basic()}
                return
        raise refused(self._endpoint, 401, "login")

    def _basic(self) -> str:
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    async def _token(self, parameters: dict[str, str]) -> str:
        realm = parameters.get("realm", "")
        if not realm.startswith(("https://", "http://") if self._endpoint.plain_http else "https://"):
            raise PermissionDenied(
                f"registry {self._endpoint.host}: its token server {realm[:100]!r} is not https",
                reason="INSECURE_REALM",
            )
        query: dict[str, str] = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        try:
            if self._credentials.identity_token:
                form = {**query, "grant_type": "refresh_token", "client_id": "slipway"}
                form["refresh_token"] = self._credentials.identity_token
                response = await self._http.post(
                    realm, data=form, follow_redirects=False
                )  # 307 would send the token on
            else:
                headers = {"Authorization": self._basic()} if self._credentials.username else {}
                response = await self._http.get(realm, params=query, headers=headers)
        except (httpx.TransportError, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise unreachable(self._endpoint, f"its token server: {error!r}") from error
        if not response.is_success:
            raise refused(self._endpoint, response.status_code, "login")
        try:
            document = response.json()
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise unreachable(self._endpoint, "its token server sends no token")
        return token
