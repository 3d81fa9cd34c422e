"""Credentials out of Docker's `config.json`: written there by `docker login`, or kept by a helper that it names.

Read anew each time it is needed, so that a login counts at once and nothing is kept here. Sources:
https://docs.docker.com/reference/cli/docker/login/ (auths, credsStore, credHelpers), docker/cli `cli/config`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api_service.executor_client.images import RegistryCredentials
from api_service.registries.credential_helper import ask_helper
from common.errors import FailedPrecondition

_MAX_FILE = 1 << 20  # bytes
_MAX_SECRET = 64 << 10  # characters
_BEARER = re.compile(r"[!-~]*")
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HUB_KEY = "https://index.docker.io/v1/"  # what Docker calls its own registry here


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerConfig:
    """`path` None: there is none, and no registry is shown anything."""

    path: Path | None = None

    async def credentials_for(self, host: str) -> RegistryCredentials:
        """`host` with its port, if any. Empty credentials when nothing is known of it. Raises FailedPrecondition
        (`DOCKER_CONFIG_UNREADABLE`, `CREDENTIAL_HELPER_FAILED`)."""
        config = await asyncio.to_thread(self._read)
        if config is None:
            return RegistryCredentials()
        names = _HUB if host in _HUB else (host,)
        if helper := _helper(config, names):
            server = _HUB_KEY if host in _HUB else host
            return await ask_helper(helper, server)
        return self._stored(config, names)

    def _read(self) -> Mapping[str, object] | None:
        if self.path is None:
            return None
        try:
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise self._unreadable("it is not a file")
                content = file.read(_MAX_FILE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(f"{error.strerror}; let the user of the API service read it") from error
        if len(content) > _MAX_FILE:
            raise self._unreadable(f"it has more than {_MAX_FILE} bytes")
        try:
            config = json.loads(content)
        except (ValueError, RecursionError) as error:
            # The parser's own words may quote what is in the file.
            raise self._unreadable("it is not JSON") from error
        if not isinstance(config, dict):
            raise self._unreadable("it is not a JSON object")
        return config

    def _stored(self, config: Mapping[str, object], names: tuple[str, ...]) -> RegistryCredentials:
        entries = {_host(str(key)): entry for key, entry in _object(config.get("auths")).items()}
        entry = next((_object(entries[name]) for name in names if name in entries), {})
        username, password = _text(entry.get("username")), _text(entry.get("password"))
        if packed := _text(entry.get("auth")):
            try:
                username, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
            except ValueError as error:  # not base64, or not a text
                raise self._unreadable(f"auth of {names[0]} is not base64 of a text") from error
            if not colon:
                raise self._unreadable(f"auth of {names[0]} is not base64 of name:password")
        found = RegistryCredentials(
            username=username,
            password=password.rstrip("\0"),
            identity_token=_text(entry.get("identitytoken")),
            registry_token=_text(entry.get("registrytoken")),
        )
        if not fit(found):
            raise self._unreadable(f"what it has for {names[0]} is too long, or has control characters")
        return found

    def _unreadable(self, why: str) -> FailedPrecondition:
        return FailedPrecondition(f"docker_config {self.path}: {why}", reason="DOCKER_CONFIG_UNREADABLE")


def fit(credentials: RegistryCredentials) -> bool:
    """Whether they can be sent: they become parts of a header."""
    shown = (
        credentials.username,
        credentials.password,
        credentials.identity_token,
        credentials.registry_token,
    )
    bearer = credentials.registry_token
    return all(len(text) <= _MAX_SECRET and text.isprintable() for text in shown) and bool(_BEARER.fullmatch(bearer))


def _helper(config: Mapping[str, object], names: tuple[str, ...]) -> str:
    """The one for this registry, else the one for all."""
    helpers = {_host(str(key)): _text(helper) for key, helper in _object(config.get("credHelpers")).items()}
    return next((helpers[name] for name in names if helpers.get(name)), "") or _text(config.get("credsStore"))


def _host(key: str) -> str:
    """Of a key that may be a URL, as older logins wrote them."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0].lower()


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
