"""Names of the containers that run on other nodes: told by the API as a whole, kept for the next executor."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pydantic import TypeAdapter

from common.sqlite import Database
from executor_service.dns.names import Registration
from executor_service.dns.service import NameServer
from executor_service.network.network import Network
from executor_service.threads import to_the_end

SCHEMA = """
CREATE TABLE IF NOT EXISTS names_elsewhere (
    network TEXT PRIMARY KEY,    -- its id
    version INTEGER NOT NULL,
    told TEXT NOT NULL           -- JSON, as it was told
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerElsewhere:
    """`names`: its own first, as of those here. `addresses` are plain."""

    id: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    network_name: str
    containers: tuple[ContainerElsewhere, ...]


_TOLD = TypeAdapter(_Told)


class NamesElsewhere(Protocol):
    """Durable; every method is idempotent."""

    async def set(
        self, network: Network, containers: Sequence[ContainerElsewhere], *, version: int, renumbered: bool
    ) -> int:
        """From the next query on these are answered on that network, beside those that run here. What is older than
        what is known changes nothing, unless the versions were `renumbered`. Returns the version that is known."""

    async def forget(self, network_id: str) -> None:
        """The network is gone."""


class StoredNamesElsewhere:
    """NamesElsewhere through a NameServer. `database` must have `SCHEMA`."""

    def __init__(self, server: NameServer, database: Database) -> None:
        self._server = server
        self._database = database
        self._registered: dict[str, dict[str, Registration]] = {}
        self._versions: dict[str, int] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Answer for what was told to the last executor."""
        for network_id, version, told in await self._database.read(_everything):
            self._register(network_id, version, _TOLD.validate_json(told))

    async def set(
        self, network: Network, containers: Sequence[ContainerElsewhere], *, version: int, renumbered: bool
    ) -> int:
        async with self._changing:
            known = self._versions.get(network.id, -1)
            if version < known and not renumbered:
                return known
            told = _Told(network_name=network.name, containers=tuple(containers))
            await to_the_end(self._put(network.id, version, told))
            return version

    async def forget(self, network_id: str) -> None:
        async with self._changing:
            if network_id not in self._versions:
                return
            await self._database.write(partial(_delete, network_id=network_id))
            for registration in self._registered.pop(network_id, {}).values():
                self._server.withdraw(network_id, registration.owner)
            del self._versions[network_id]

    async def _put(self, network_id: str, version: int, told: _Told) -> None:
        text = _TOLD.dump_json(told).decode()
        await self._database.write(partial(_put, network_id=network_id, version=version, told=text))
        self._register(network_id, version, told)

    def _register(self, network_id: str, version: int, told: _Told) -> None:
        """What is as it was costs nothing."""
        before = self._registered.get(network_id, {})
        now = {one.owner: one for one in (_registration(network_id, told.network_name, c) for c in told.containers)}
        for owner in before.keys() - now.keys():
            self._server.withdraw(network_id, owner)
        for owner, registration in now.items():
            if before.get(owner) != registration:
                self._server.register(registration)
        self._registered[network_id] = now
        self._versions[network_id] = version


def _registration(network_id: str, network_name: str, container: ContainerElsewhere) -> Registration:
    return Registration(
        network_id=network_id,
        network_name=network_name,
        container_id=container.id,
        names=container.names,
        addresses=container.addresses,
        elsewhere=True,
    )


def _everything(connection: sqlite3.Connection) -> list[tuple[str, int, str]]:
    return connection.execute("SELECT network, version, told FROM names_elsewhere").fetchall()


def _put(connection: sqlite3.Connection, *, network_id: str, version: int, told: str) -> None:
    connection.execute("INSERT OR REPLACE INTO names_elsewhere VALUES (?, ?, ?)", (network_id, version, told))


def _delete(connection: sqlite3.Connection, network_id: str) -> None:
    connection.execute("DELETE FROM names_elsewhere WHERE network = ?", (network_id,))


_: type[NamesElsewhere] = StoredNamesElsewhere
