"""The instant by which an answer is needed, handed down from the client's call to the executor's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from common.errors import DeadlineExceeded

DEFAULT_DEADLINE = 120.0  # seconds, for a client that gave none
UPLOAD_DEADLINE = 3600.0  # seconds, for images and archives, from a client that gave none


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at` is on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(self.at - time.monotonic(), 0.0)

    def at_most(self, seconds: float) -> Deadline:
        """This one, or `seconds` from now, whichever comes first."""
        return min(self, Deadline.after(seconds), key=lambda deadline: deadline.at)

    @asynccontextmanager
    async def enforced(self, what: str) -> AsyncIterator[None]:
        """Cancel the block at this instant. Raises DeadlineExceeded naming `what`."""
        try:
            async with asyncio.timeout(self.remaining) as scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded(f"{what}: not done within the call's deadline") from error
