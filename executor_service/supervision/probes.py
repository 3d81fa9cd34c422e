"""The probes of health checks. The native ones (HTTP, TCP, gRPC) are made by the executor itself from inside the
container's network namespace, over loopback: no process is started and the image needs no program.

The namespace is entered by a thread that is thrown away, which only makes the socket: a socket stays in the namespace
it was made in (network_namespaces(7)), whoever uses it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from executor_service.container import ContainerSpec
from executor_service.container_record import Run
from executor_service.health import ExecProbe, GrpcProbe, HttpProbe, Probe, TcpProbe
from executor_service.journal_entries import JournalEntry, Started
from executor_service.network.syscalls import enter_network
from executor_service.supervision.grpc_probe import ask_health
from executor_service.supervision.http_probe import get_status
from executor_service.threads import in_own_thread

MAX_OUTPUT = 4096  # bytes, as Docker keeps
TOO_LATE = -1  # the exit code of a probe that took longer than its timeout
_FAILED = 1
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_NOT_THERE = (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """The run that is probed. `netns_path`: empty for the host's network."""

    spec: ContainerSpec
    run: Run
    netns_path: str

    @classmethod
    def of(cls, spec: ContainerSpec, run: Run, started: JournalEntry) -> ProbeTarget:
        path = started.event.netns_path if isinstance(started.event, Started) else ""
        return cls(spec=spec, run=run, netns_path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`exit_code`: 0 is healthy."""

    exit_code: int
    output: str


RunProgram = Callable[[ProbeTarget, tuple[str, ...], float], Awaitable[tuple[int | None, bytes]]]
"""Run a program in the container as the container's user, with its environment, for so many seconds; the exit code,
None when it was killed because its time was up, and what it wrote. Cancelled, it kills the program. Raises when the
program cannot be run."""


class Prober:
    """`sockets`: a directory (0700, made when it is needed) for the sockets through which gRPC probes go."""

    def __init__(self, *, sockets: Path, run_program: RunProgram) -> None:
        self._sockets = sockets
        self._run_program = run_program

    async def probe(self, probe: Probe, target: ProbeTarget, *, timeout: float) -> Outcome:
        """Never raises but for a cancel: a probe that cannot be made has failed."""
        try:
            if isinstance(probe, ExecProbe):
                return await self._program(probe, target, timeout)
            async with asyncio.timeout(timeout) as limit:
                return await self._native(probe, target)
        except TimeoutError as error:
            if not isinstance(probe, ExecProbe) and limit.expired():
                return _too_late(timeout)
            return Outcome(exit_code=_FAILED, output=_cut(str(error)))
        except Exception as error:
            return Outcome(exit_code=_FAILED, output=_cut(str(error) or type(error).__name__))

    async def _program(self, probe: ExecProbe, target: ProbeTarget, timeout: float) -> Outcome:
        code, written = await self._run_program(target, probe.args, timeout)
        output = written[:MAX_OUTPUT].decode(errors="replace")
        return _too_late(timeout, output) if code is None else Outcome(exit_code=code, output=_cut(output))

    async def _native(self, probe: TcpProbe | HttpProbe | GrpcProbe, target: ProbeTarget) -> Outcome:
        connection = await _connect(target.netns_path, probe.port)
        match probe:
            case TcpProbe(port=port):
                connection.close()
                healthy, text = True, f"port {port} accepts connections"
            case HttpProbe():
                status, text = await get_status(connection, probe, limit=MAX_OUTPUT)
                healthy = 200 <= status < 400
            case GrpcProbe(service=service):
                healthy, text = await ask_health(connection, service=service, directory=self._sockets)
        return Outcome(exit_code=0 if healthy else _FAILED, output=_cut(text))


async def _connect(netns_path: str, port: int) -> socket.socket:
    """A connection to the port on loopback, IPv4 first. Raises OSError."""
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for family, address in _LOOPBACK:
        try:
            connection = await in_own_thread(partial(_socket_in, netns_path, family))
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            continue
        try:
            await loop.sock_connect(connection, (address, port))
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError) or error.errno not in _NOT_THERE:
                raise
            refused = refused or error
        else:
            return connection
    raise OSError(errno.ECONNREFUSED, f"nothing listens on port {port}") from refused


def _socket_in(netns_path: str, family: int) -> socket.socket:
    if netns_path:
        namespace = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter_network(namespace)
        finally:
            os.close(namespace)
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    return connection


def _too_late(timeout: float, output: str = "") -> Outcome:
    why = f"Health check exceeded timeout ({timeout:g}s)"
    return Outcome(exit_code=TOO_LATE, output=_cut(f"{why}: {output}" if output else why))


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:MAX_OUTPUT].decode(errors="ignore")
