"""The node's lease: until when containers that may be started elsewhere after a loss of the node may run here.

The API renews it. Each answer carries a word that says, on this node's own clock, when it was given; a renewal brings
the word of the answer before, and the lease runs from that moment. So no clocks are compared between machines, and a
renewal that was on its way for an hour extends nothing.

Another process ends the containers when the lease is over (see `lease_guard`): an executor that is frozen or dead could
not. What it needs is in files of the run directory, which a new executor finds as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import structlog

from common.errors import Internal, InvalidArgument, Unavailable, Violation
from executor_service import lease_guard
from executor_service.container import CONTAINER_ID
from executor_service.run import MINIMAL_ENVIRONMENT
from executor_service.threads import finish

_log = structlog.get_logger(__name__)

MAX_TTL = 3600.0  # seconds
_GUARD_TIME = 10.0  # seconds to start the guard


class Lease:
    """Belongs to one event loop. Use `open`."""

    def __init__(self, directory: Path, *, boot_id: str) -> None:
        self._directory = directory
        self._boot_id = boot_id
        self._deadline = 0
        self._runs: set[str] = set()
        self._renewing = asyncio.Lock()
        self._renewed = asyncio.Event()

    @classmethod
    async def open(cls, directory: Path, *, boot_id: str) -> Self:
        lease = cls(directory, boot_id=boot_id)
        await finish(lease._load)
        return lease

    @property
    def in_force(self) -> bool:
        return _now() < self._deadline

    async def renew(self, after: str, *, ttl: float) -> str:
        """The word for the next renewal. `after`: that of the answer before; empty: nothing is renewed. Raises
        InvalidArgument."""
        if not 0 < ttl <= MAX_TTL:
            why = f"{ttl:g} s is not a time above 0 and up to {MAX_TTL:g} s"
            raise InvalidArgument(violations=[Violation(field="ttl", description=why)])
        given = self._moment(after)
        if given is not None:
            async with self._renewing:
                await self._prolong(given + int(ttl * 1e9))
        return f"{self._boot_id} {_now()}"

    async def _prolong(self, deadline: int) -> None:
        """Never two at once: the earlier deadline could be the one that the guard reads in the end."""
        if deadline > self._deadline:
            if self._runs:
                await finish(self._guard)
            await finish(partial(_write, self._directory / "deadline", str(deadline)))
            self._deadline = deadline
            self._renewed.set()
            self._renewed = asyncio.Event()

    async def until_in_force(self) -> None:
        while not self.in_force:
            await self._renewed.wait()

    async def enter(self, container_id: str, cgroups: Sequence[Path]) -> None:
        """To be called before the container's process can exist. Raises Unavailable (`LEASE_OVER`)."""
        await finish(partial(self._add, container_id, cgroups))
        self._runs.add(container_id)
        self.require(container_id)

    def require(self, container_id: str) -> None:
        """Raises Unavailable (`LEASE_OVER`)."""
        if not self.in_force:
            raise Unavailable(
                f"container {container_id!r}: it may run only while the node holds its lease, which is over; it is "
                "renewed as soon as an API service follows the node",
                retry_after=1.0,
                reason="LEASE_OVER",
            )

    def ended(self, container_id: str) -> bool:
        """Whether it was killed because the lease was over."""
        return container_id in self._runs and (self._directory / "ended" / container_id).exists()

    async def leave(self, container_id: str) -> None:
        """When nothing of its run is left. Not entered: nothing happens."""
        if container_id in self._runs:
            await finish(partial(self._forget, container_id))
            self._runs.discard(container_id)

    def _load(self) -> None:
        for directory in (self._directory, self._directory / "runs", self._directory / "ended"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._deadline = lease_guard.deadline(self._directory)
        self._runs = {path.name for path in (self._directory / "runs").iterdir() if CONTAINER_ID.fullmatch(path.name)}

    def _moment(self, word: str) -> int | None:
        """When the word was given; None for one of before the last boot, which proves nothing."""
        boot_id, _, moment = word.partition(" ")
        if not word or boot_id != self._boot_id:
            return None
        if not moment.isdecimal() or len(moment) > 19 or int(moment) > _now():
            why = "is not the word of an answer of this executor; leave it empty to get one"
            raise InvalidArgument(violations=[Violation(field="after", description=why)])
        return int(moment)

    def _add(self, container_id: str, cgroups: Sequence[Path]) -> None:
        with self._door():
            (self._directory / "ended" / container_id).unlink(missing_ok=True)
            _write(self._directory / "runs" / container_id, "".join(f"{path}\n" for path in cgroups))
            self._require_guard()

    @contextlib.contextmanager
    def _door(self) -> Iterator[None]:
        """The guard holds it for no longer than it takes to leave."""
        with (self._directory / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield

    def _guard(self) -> None:
        with self._door():
            self._require_guard()

    def _forget(self, container_id: str) -> None:
        for name in ("runs", "ended"):
            (self._directory / name / container_id).unlink(missing_ok=True)

    def _require_guard(self) -> None:
        """Make sure that there is one. Blocks. Raises Internal."""
        if self._is_guarded():
            return
        begun = subprocess.run(
            [sys.executable, "-I", "-S", lease_guard.__file__, str(self._directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(MINIMAL_ENVIRONMENT),
            cwd="/",
            start_new_session=True,
            timeout=_GUARD_TIME,
            check=False,
        )
        if begun.returncode != 0 or not self._is_guarded():
            raise Internal("the guard of the node's lease cannot be started, so nothing may run under the lease")
        _log.info("lease guarded", directory=str(self._directory))

    def _is_guarded(self) -> bool:
        with contextlib.suppress(FileNotFoundError), (self._directory / "guard").open() as guard:
            try:
                fcntl.flock(guard, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def end_guard(directory: Path) -> None:
    """For when nothing of the node is to be left. Blocks. None there: nothing happens."""
    with contextlib.suppress(FileNotFoundError), (directory / "guard").open("r+") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Whoever holds the lock has written its own id, and nobody else gets that as long as it lives.
            os.kill(int(guard.read()), signal.SIGKILL)
            fcntl.flock(guard, fcntl.LOCK_EX)


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(text)
    os.replace(beside, path)  # noqa: PTH105 - what is meant is rename(2)
