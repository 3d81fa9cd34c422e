"""What containers are called on user-defined networks. In memory only: the executor's records say it again at start.

All of it is used on the event loop's thread and nothing awaits, so that a change is whole for whoever asks: the new
name answers with the very next query, the old one no more.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from executor_service.dns.wire import TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_PTR, address_record, encode_name, pointer_record

# Seconds. Docker's is 600, and clients that believe it (nginx, the JVM) talk to an address long after the container
# moved. Asking again costs 50 µs and leaves the machine never.
TTL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A container on a network. `names`: its own first, which PTR answers with, then aliases; each also answers as
    `name.network_name`. Names that DNS cannot carry are not answered. `addresses` are plain, of either family."""

    network_id: str
    network_name: str
    container_id: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    elsewhere: bool = False  # on another node: what is known of it there and of one with its id here are two things

    @property
    def owner(self) -> str:
        """Of the names; see Names."""
        return f"{self.container_id} elsewhere" if self.elsewhere else self.container_id


@dataclass(frozen=True, slots=True)
class _Records:
    """One container's records under one name, by family."""

    ipv4: tuple[bytes, ...]
    ipv6: tuple[bytes, ...]


@dataclass(slots=True)
class _Zone:
    """A network. Keys are names as on the wire, then the registrations' owners."""

    short: dict[bytes, dict[str, _Records]] = field(default_factory=dict)
    qualified: dict[bytes, dict[str, _Records]] = field(default_factory=dict)
    reverse: dict[bytes, dict[str, bytes]] = field(default_factory=dict)
    registered: dict[str, Registration] = field(default_factory=dict)


class Names:
    """The names of every network of the node."""

    def __init__(self) -> None:
        self._zones: dict[str, _Zone] = {}
        self.changes = 0  # counts up: while it stands, so does every answer

    def register(self, registration: Registration) -> None:
        """Replaces whatever the container was called on that network."""
        owner = registration.owner
        self.withdraw(registration.network_id, owner)
        self.changes += 1
        zone = self._zones.setdefault(registration.network_id, _Zone())
        zone.registered[owner] = registration
        records = _records(registration.addresses)
        for table, key in _keys(zone, registration):
            table.setdefault(key, {})[owner] = records
        for key, pointer in _pointers(registration):
            zone.reverse.setdefault(key, {})[owner] = pointer

    def withdraw(self, network_id: str, owner: str) -> None:
        """Idempotent. `owner`: of the registration, the container's id when it runs here."""
        zone = self._zones.get(network_id)
        if zone is None or (registration := zone.registered.pop(owner, None)) is None:
            return
        self.changes += 1
        for table, key in _keys(zone, registration):
            _remove(table, key, owner)
        for key, _ in _pointers(registration):
            _remove(zone.reverse, key, owner)
        if not zone.registered:
            del self._zones[network_id]

    def find(self, networks: Iterable[str], name: bytes, kind: int) -> list[bytes] | None:
        """The records of a name as on the wire, on any of the networks, beginning with any of them; none of that kind
        is an empty list, an unknown name None."""
        zones = [self._zones[network] for network in networks if network in self._zones]
        found = [records for zone in zones for records in zone.short.get(name, {}).values()]
        found = found or [records for zone in zones for records in zone.qualified.get(name, {}).values()]
        if found:
            return _rotated(_of_kind(found, kind))
        pointers = [pointer for zone in zones for pointer in zone.reverse.get(name, {}).values()]
        if pointers:
            return pointers if kind in {TYPE_PTR, TYPE_ANY} else []
        return None


def _of_kind(found: Sequence[_Records], kind: int) -> list[bytes]:
    wanted: list[bytes] = []
    for records in found:
        if kind in {TYPE_A, TYPE_ANY}:
            wanted += records.ipv4
        if kind in {TYPE_AAAA, TYPE_ANY}:
            wanted += records.ipv6
    return wanted


def _rotated(records: list[bytes]) -> list[bytes]:
    if len(records) < 2:
        return records
    first = secrets.randbelow(len(records))
    return records[first:] + records[:first]


def _records(addresses: Sequence[str]) -> _Records:
    parsed = [ip_address(address) for address in addresses]
    return _Records(
        tuple(address_record(address, ttl=TTL) for address in parsed if address.version == 4),
        tuple(address_record(address, ttl=TTL) for address in parsed if address.version == 6),
    )


def _keys(zone: _Zone, registration: Registration) -> list[tuple[dict[bytes, dict[str, _Records]], bytes]]:
    keys = []
    for name in registration.names:
        for table, text in ((zone.short, name), (zone.qualified, f"{name}.{registration.network_name}")):
            if (key := encode_name(text)) is not None:
                keys.append((table, key))
    return keys


def _pointers(registration: Registration) -> list[tuple[bytes, bytes]]:
    name = encode_name(f"{registration.names[0]}.{registration.network_name}") if registration.names else None
    if name is None:
        return []
    pointer = pointer_record(name, ttl=TTL)
    return [(_reverse(ip_address(address)), pointer) for address in registration.addresses]


def _reverse(address: IPv4Address | IPv6Address) -> bytes:
    key = encode_name(address.reverse_pointer)
    assert key is not None
    return key


def _remove(table: dict[bytes, dict[str, _Records]] | dict[bytes, dict[str, bytes]], key: bytes, owner: str) -> None:
    owners = table.get(key)
    if owners is None:
        return
    owners.pop(owner, None)
    if not owners:
        del table[key]
