"""Every sandbox's name server and the names that they know."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from executor_service.dns.names import Names, Registration
from executor_service.dns.redirect import open_sockets
from executor_service.dns.sandbox_server import Resolving, SandboxServer
from executor_service.dns.upstreams import HostServers
from executor_service.threads import in_own_thread, to_the_end


class NameServer:
    """Answers at 127.0.0.11 of the sandboxes that it serves, UDP and TCP. Keeps nothing: a new executor serves and
    registers again. An async context manager on the running event loop. `resolv_conf` is the host's."""

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
        """Answer in the network namespace at this path. A sandbox that is served already goes on with the new
        `resolving`, which costs nothing. Raises OSError."""
        if (served := self._served.get(sandbox)) is not None:
            served.resolving = resolving
            return
        await self._host_servers.current()
        try:
            await to_the_end(self._open(sandbox, namespace, resolving))
        except asyncio.CancelledError:
            await self.stop(sandbox)
            raise

    def serves(self, sandbox: str) -> bool:
        return sandbox in self._served

    async def stop(self, sandbox: str) -> None:
        """Answer there no more. Idempotent."""
        if (server := self._served.pop(sandbox, None)) is not None:
            await server.stop()

    def register(self, registration: Registration) -> None:
        """The container is called so from the next query on, and nothing else on that network."""
        self._names.register(registration)

    def withdraw(self, network_id: str, owner: str) -> None:
        """Idempotent. `owner`: of the registration."""
        self._names.withdraw(network_id, owner)

    async def _open(self, sandbox: str, namespace: str, resolving: Resolving) -> None:
        sockets = await in_own_thread(partial(open_sockets, namespace))
        server = SandboxServer(sockets, names=self._names, host_servers=self._host_servers, resolving=resolving)
        self._served[sandbox] = server
        await server.start()
