"""Clients at the standard streams of containers: one connection to each monitor, and everybody at that.

A monitor stops its container while a client of its does not read, and, for a container whose input ends with its first
client, takes any connection's end for that. So there is one connection, it is always read at once, and whoever does
not take his share in time is dropped. The connection is made when there is a client, before the process begins if the
client was there before the start.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from common.errors import ResourceExhausted, SlipwayError, Unavailable
from executor_service.container import ContainerSpec
from executor_service.streams.attach_client import AttachClient
from executor_service.streams.monitor_connection import MonitorConnection

_log = structlog.get_logger(__name__)

_MAX_CLIENTS = 64  # of one container


class Attachments:
    """All clients of the node. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[AttachClient]] = {}
        self._monitors: dict[str, MonitorConnection] = {}

    @asynccontextmanager
    async def attached(
        self, spec: ContainerSpec, bundle: Path | None, *, stdin: bool, stdout: bool, stderr: bool
    ) -> AsyncIterator[AttachClient]:
        """A client, until the block ends. `bundle`: of the process that runs; None: the next start is waited for.
        Raises ResourceExhausted."""
        client = AttachClient(stdin=stdin, stdout=stdout, stderr=stderr)
        monitor = self._monitors.get(spec.id)
        count = len(self._waiting.get(spec.id, ())) + (len(monitor.clients) if monitor is not None else 0)
        if count >= _MAX_CLIENTS:
            raise ResourceExhausted(
                f"container {spec.id!r}: {count} clients are attached, no more are possible; end one",
                reason="TOO_MANY_CLIENTS",
            )
        self._waiting.setdefault(spec.id, set()).add(client)
        try:
            if bundle is not None:
                await self.connect(spec, bundle)
            yield client
        finally:
            self._remove(spec.id, client)

    def awaited(self, container_id: str) -> bool:
        """Somebody waits for the container's start."""
        return container_id in self._waiting

    async def connect(self, spec: ContainerSpec, bundle: Path) -> None:
        """Connect everybody who waits to the process of this bundle, and give its terminal the size they asked for
        last. Never fails: where no monitor listens the process has ended, and so does the attachment."""
        waiting = self._waiting.pop(spec.id, set())
        if not waiting:
            return
        monitor = self._monitors.get(spec.id)
        try:
            if monitor is None:
                monitor = self._monitors[spec.id] = MonitorConnection(
                    spec, bundle, on_end=lambda: self._monitors.pop(spec.id, None)
                )
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
            if not gone:
                _log.error("the monitor cannot be attached to", container=spec.id, error=str(error))
            for client in waiting:
                client.end(None if gone else Unavailable(f"container {spec.id!r}: {error.strerror}"))
            return
        for client in waiting:
            monitor.take(client)
        try:
            asked = [client for client in waiting if client.size is not None]
            if asked and (size := max(asked, key=lambda client: client.resized).size) is not None:
                await monitor.resize(size)
        except Unavailable as error:
            _log.warning("the terminal has not its size", container=spec.id, error=error.message)
        finally:
            for client in waiting:
                client.begin()

    def give_up(self, container_id: str, error: SlipwayError | None) -> None:
        """What was waited for will not come: the start failed, or the container was removed."""
        for client in self._waiting.pop(container_id, set()):
            client.end(error)

    def close(self) -> None:
        """The executor ends: nobody is attached any more."""
        stopping = Unavailable("the executor is stopping; attach again in a moment", retry_after=1.0)
        for container_id in list(self._waiting):
            self.give_up(container_id, stopping)
        for monitor in list(self._monitors.values()):
            monitor.end(stopping)

    def _remove(self, container_id: str, client: AttachClient) -> None:
        waiting = self._waiting.get(container_id, set())
        waiting.discard(client)
        if not waiting:
            self._waiting.pop(container_id, None)
        monitor = self._monitors.get(container_id)
        if monitor is not None and client in monitor.clients:
            monitor.leave(client)
