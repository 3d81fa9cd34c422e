"""Who gets which sandbox, decided on the database's thread, in one transaction each."""

from __future__ import annotations

import base64
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from common.errors import FailedPrecondition
from executor_service.container import EndpointSpec
from executor_service.network import freed_addresses, records
from executor_service.network.network import Network
from executor_service.network.records import SandboxRecord

_TOKEN_LENGTH = 9  # of base 32: 45 bits; with the prefix exactly the 15 characters of an interface's name


def new_token() -> str:
    return base64.b32encode(secrets.token_bytes(_TOKEN_LENGTH)).decode().lower()[:_TOKEN_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxClaims:
    """`network`: the one with an id, raises FailedPrecondition. `exists`: whether what a record tells of is there."""

    network: Callable[[str], Network]
    exists: Callable[[SandboxRecord], bool]

    def claim(
        self,
        connection: sqlite3.Connection,
        wanted: SandboxRecord,
        endpoints: Sequence[EndpointSpec],
        ready: SandboxRecord | None,
    ) -> SandboxRecord | None:
        """The sandbox's record if it stands already, else the ready one made its own, else a new one. None, and nothing
        has changed, when the ready one has its addresses already and who asks had others before; one without networks
        is given them here. Raises FailedPrecondition for one that stands with another mode."""
        assert wanted.sandbox_id is not None
        existing = records.find(connection, wanted.sandbox_id)
        if existing is not None and self.exists(existing):
            _check_same(existing, wanted)
            freed_addresses.owned_again(connection, existing.token)
            record = existing
        elif ready is not None and ready.endpoints and _has_been_there(connection, wanted, endpoints):
            return None
        else:
            if existing is not None:
                # Left by a crash before its pin. Its token is not used again: the old interface may still be dying.
                records.delete(connection, {existing.token})
            if ready is not None and self.exists(ready):
                records.give(connection, token=ready.token, sandbox_id=wanted.sandbox_id)
                record = replace(ready, sandbox_id=wanted.sandbox_id)
                if not ready.endpoints:
                    # Its interface is there, under the sandbox's own token.
                    record = self._attached(connection, record, endpoints, token=ready.token)
            else:
                record = self.record(connection, wanted, endpoints)
        records.add_member(connection, token=record.token, member=wanted.sandbox_id)
        records.set_resolution(connection, token=record.token, resolution=wanted.resolution)
        return replace(record, resolution=wanted.resolution)

    def record(
        self, connection: sqlite3.Connection, wanted: SandboxRecord, endpoints: Sequence[EndpointSpec]
    ) -> SandboxRecord:
        """A new one, with its endpoints' leases."""
        records.insert(connection, wanted)
        return self._attached(connection, wanted, endpoints, token=new_token())

    def _attached(
        self, connection: sqlite3.Connection, record: SandboxRecord, endpoints: Sequence[EndpointSpec], *, token: str
    ) -> SandboxRecord:
        """`token`: the first endpoint's."""
        for spec in endpoints:
            network = self.network(spec.network_id)
            record = records.add_endpoint(connection, record, token=token, spec=spec, network=network)
            token = new_token()
        return record

    def join(self, connection: sqlite3.Connection, member: str, owner: str) -> SandboxRecord:
        """Raises FailedPrecondition when the owner has none."""
        record = records.find(connection, owner)
        if record is None or not self.exists(record):
            raise FailedPrecondition(
                f"container '{owner}' has no network of its own to share: it does not run; start it first",
                resource_type="sandbox",
                resource_name=owner,
                reason="CANNOT_JOIN_NAMESPACE",
            )
        records.add_member(connection, token=record.token, member=member)
        return record


def _has_been_there(connection: sqlite3.Connection, wanted: SandboxRecord, endpoints: Sequence[EndpointSpec]) -> bool:
    assert wanted.sandbox_id is not None
    return any(freed_addresses.own(connection, spec.network_id, wanted.sandbox_id) for spec in endpoints)


def leave(connection: sqlite3.Connection, member: str, token: str) -> bool:
    """Whether nobody is left in the sandbox."""
    records.remove_member(connection, member)
    return not records.members(connection, token)


def _check_same(existing: SandboxRecord, wanted: SandboxRecord) -> None:
    if existing.mode is wanted.mode:
        return
    raise FailedPrecondition(
        f"sandbox '{existing.sandbox_id}' exists with mode {existing.mode}; it must go before it is made with mode "
        f"{wanted.mode}",
        reason="SANDBOX_DIFFERS",
        resource_type="sandbox",
        resource_name=str(existing.sandbox_id),
    )
