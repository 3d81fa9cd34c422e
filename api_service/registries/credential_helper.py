"""Programs that keep credentials, `docker-credential-<name>`: asked for one registry's, trusted with nothing else.

Source: https://github.com/docker/docker-credential-helpers (`get`: the server's name on its input, JSON on its output)
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import signal
from contextlib import suppress

from api_service.executor_client.images import RegistryCredentials
from common.errors import FailedPrecondition

_TIMEOUT = 10.0  # seconds
_MAX_ANSWER = 256 << 10  # bytes
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
_NOT_FOUND = b"credentials not found in native keychain"
_TOKEN = "<token>"  # noqa: S105 - the name that says that the secret is a refresh token


async def ask_helper(name: str, server: str) -> RegistryCredentials:
    """Empty when it knows none. Raises FailedPrecondition (`CREDENTIAL_HELPER_FAILED`), which quotes nothing of what it
    wrote."""
    if not _NAME.fullmatch(name):
        raise _failed(name[:80], "this is no name of a helper: letters, digits, '.', '_' and '-'")
    try:
        async with asyncio.timeout(_TIMEOUT):
            status, answer = await _run(f"docker-credential-{name}", server)
    except TimeoutError as error:
        raise _failed(name, f"it has not answered within {_TIMEOUT:g} s") from error
    except OSError as error:
        raise _failed(name, f"{error.strerror}; it must be in the PATH of the API service") from error
    if len(answer) > _MAX_ANSWER:
        raise _failed(name, f"it answers with more than {_MAX_ANSWER} bytes")
    if status != 0:
        if answer.strip() == _NOT_FOUND:
            return RegistryCredentials()
        raise _failed(name, f"it ended with status {status}; run it by hand as the user of the API service")
    return _parsed(name, answer)


class _Answer(asyncio.SubprocessProtocol):
    """What a program writes, at most a little more than is allowed. `ended`: when it has written too much, or has ended
    and closed its output. `gone`: when it is reaped as well."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.data = bytearray()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.data += data
        if len(self.data) > _MAX_ANSWER and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.ended, self.gone):
            if not future.done():
                future.set_result(None)


async def _run(program: str, server: str) -> tuple[int, bytes]:
    """Its status and what it wrote. It does not outlive the call."""
    transport, answer = await asyncio.get_running_loop().subprocess_exec(
        _Answer,
        program,
        "get",
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": _home()},
        cwd="/",
        start_new_session=True,
    )
    try:
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        stdin.write(server.encode())
        stdin.close()
        await answer.ended
    finally:
        # Its children as well; it is not reaped before, so the group is its own.
        if transport.get_returncode() is None:
            with suppress(ProcessLookupError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        await asyncio.shield(answer.gone)
    return transport.get_returncode() or 0, bytes(answer.data)


def _parsed(name: str, answer: bytes) -> RegistryCredentials:
    try:
        document = json.loads(answer)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _failed(name, "its answer is not a JSON object with Username and Secret") from None
    if not (isinstance(username, str) and isinstance(secret, str) and secret.isprintable() and username.isprintable()):
        raise _failed(name, "Username and Secret of its answer must be texts without control characters")
    if username == _TOKEN:
        return RegistryCredentials(identity_token=secret)
    return RegistryCredentials(username=username, password=secret)


def _home() -> str:
    """Of the user this service became; the variable may be that of who started it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


def _failed(name: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(f"credential helper docker-credential-{name}: {why}", reason="CREDENTIAL_HELPER_FAILED")
