"""How the host itself resolves names, as its resolv.conf(5) says now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

MOST_SERVERS = 3  # resolv.conf(5): MAXNS
_PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")  # Docker's, for a host that names none
_FRESH = 1.0  # seconds without looking at the file again


class HostServers:
    """At most three addresses, loopback ones included: we ask from the host's namespace. The file is looked at when
    somebody asks, once a second at most, by whatever name and inode it has then: it is often a symlink, and often
    replaced rather than written, so there is no one thing to watch."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._servers: tuple[str, ...] = _PUBLIC_SERVERS
        self._search_first = False
        self._seen: tuple[int, int, int, int] | None = None
        self._looked_at: float | None = None
        self._lock = asyncio.Lock()

    @property
    def search_first(self) -> bool:
        """As of the last look."""
        return self._search_first

    async def current(self) -> Sequence[str]:
        if self._stale():
            async with self._lock:
                if self._stale():
                    await asyncio.to_thread(self._look)
                    self._looked_at = self._clock()
        return self._servers

    def _stale(self) -> bool:
        return self._looked_at is None or self._clock() - self._looked_at >= _FRESH

    def _look(self) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                content = self._path.read_text(errors="replace")
                self._servers = servers_of(content) or _PUBLIC_SERVERS
                self._search_first = searches_first(options_of(content))
                self._seen = seen
                _log.info("name servers read", file=str(self._path), servers=self._servers)
        except OSError as error:
            # Gone for an instant while it is replaced: what was true goes on being used.
            _log.warning("name servers cannot be read", file=str(self._path), error=str(error))


def servers_of(resolv_conf: str) -> tuple[str, ...]:
    servers = []
    for line in resolv_conf.splitlines():
        keyword, *values = line.split("#")[0].split(";")[0].split() or [""]
        if keyword == "nameserver" and values and is_address(values[0]):
            servers.append(values[0])
    return tuple(servers[:MOST_SERVERS])


def options_of(resolv_conf: str) -> tuple[str, ...]:
    lines = (line.split() for line in resolv_conf.splitlines())
    return tuple(option for keyword, *options in filter(None, lines) if keyword == "options" for option in options)


def searches_first(options: Sequence[str]) -> bool:
    """Whether somebody has asked that names of few dots be tried in the search domains before they are as they are."""
    counts = [option.removeprefix("ndots:") for option in options if option.startswith("ndots:")]
    return any(count.isdecimal() and int(count) > 0 for count in counts)


def is_address(text: str) -> bool:
    """Also with a zone: `fe80::1%eth0`."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
