"""The one door to other programs: minimal environment, copy-pasteable log line, bounded time, killed on cancel."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)

MINIMAL_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A finished program: its exit status and what it wrote."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def message(self) -> str:
        """What the program said of its failure, in one line."""
        text = (self.stderr or self.stdout).decode(errors="replace").strip()
        return text or f"{self.argv[0]} ended with status {self.returncode} and no message"


class Descriptor(Protocol):
    """An open file, pipe or socket."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


async def run(
    argv: Sequence[str],
    *,
    timeout: float,  # seconds
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    give: Sequence[Descriptor] = (),
    cwd: str | None = None,
) -> Completed:
    """Run a program to its end. `give`: passed as `pass_fds` are, and closed here when the program has them. Raises
    TimeoutError (program killed) and FileNotFoundError; a non-zero status is the caller's to judge."""
    _log.debug("run", argv=shlex.join(argv))
    with ExitStack() as given:
        for each in give:
            given.callback(each.close)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**MINIMAL_ENVIRONMENT, **(env or {})},
            pass_fds=[*pass_fds, *(each.fileno() for each in give)],
            cwd=cwd,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(stdin)
    except BaseException:
        await _kill(process)
        raise
    assert process.returncode is not None
    return Completed(argv=tuple(argv), returncode=process.returncode, stdout=stdout, stderr=stderr)


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await asyncio.shield(process.wait())
