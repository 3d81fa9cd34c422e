"""The name service of user-defined networks, as the rest of the executor sees it, and its one implementation."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from executor_service.dns.names import Names, Registration
from executor_service.dns.redirect import open_sockets
from executor_service.dns.sandbox_server import Resolving, SandboxServer
from executor_service.dns.upstreams import HostServers
from executor_service.network.worker import in_own_thread, to_the_end


class NameService(Protocol):
    """Answers the containers of user-defined networks at 127.0.0.11, UDP and TCP. Keeps nothing: after a restart every
    live sandbox is served and every running container registered again."""

    async def serve(self, sandbox: str, *, namespace: str, resolving: Resolving) -> None:
        """Answer in the network namespace at this path. A sandbox that is served already goes on with the new
        `resolving`, which costs nothing. Raises OSError."""

    async def stop(self, sandbox: str) -> None:
        """Answer there no more. Idempotent."""

    def register(self, registration: Registration) -> None:
        """The container is called so from the next query on, and nothing else on that network."""

    def withdraw(self, network_id: str, container_id: str) -> None:
        """Idempotent."""


class NameServer:
    """NameService on the running event loop; an async context manager. `resolv_conf` is the host's."""

    def __init__(self, *, resolv_conf: Path = Path("/etc/resolv.conf")) -> None:
        self._names = Names()
        self._host_servers = HostServers(resolv_conf)
        self._served: dict[str, SandboxServer] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sandbox in list(self._served):
            await self.stop(sandbox)

    async def serve(self, sandbox: str, *, namespace: str, resolving: Resolving) -> None:
        if (served := self._served.get(sandbox)) is not None:
            served.resolving = resolving
            return
        try:
            await to_the_end(self._open(sandbox, namespace, resolving))
        except asyncio.CancelledError:
            await self.stop(sandbox)
            raise

    async def stop(self, sandbox: str) -> None:
        if (server := self._served.pop(sandbox, None)) is not None:
            await server.stop()

    def register(self, registration: Registration) -> None:
        self._names.register(registration)

    def withdraw(self, network_id: str, container_id: str) -> None:
        self._names.withdraw(network_id, container_id)

    async def _open(self, sandbox: str, namespace: str, resolving: Resolving) -> None:
        sockets = await in_own_thread(partial(open_sockets, namespace))
        server = SandboxServer(sockets, names=self._names, host_servers=self._host_servers, resolving=resolving)
        self._served[sandbox] = server
        await server.start()


_: type[NameService] = NameServer
