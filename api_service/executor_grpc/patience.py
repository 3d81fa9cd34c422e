"""What calls of a node do while this service has no connection to it: they fail at once, or wait for some time.

A node is on record as ready when one API service has a connection. Each of the others makes its own when a request
needs it, which is no reason to refuse that request: a link may have been mended this moment. Who is known not to answer
is not waited for. On this machine it can be asked whether anybody listens: whoever saw the executor start may call at
once, and gRPC is given the time to try again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc

_PATIENCE = 4.0  # seconds; more than gRPC gives one attempt to connect, and less than whoever asks for facts waits
_MOMENT = 0.5  # seconds; more than gRPC lets pass between two attempts (executor.py)
_LOOK_EVERY = 0.05  # seconds; gRPC tells of its connection's states only to who waits without end
_FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_READY = grpc.ChannelConnectivity.READY
_NOT_AGAIN = 1.0  # seconds after waiting in vain, for requests that make several calls


class Patience:
    """Of one channel. `wanted` before a call, `grant` for it when that was true. `is_there`: whether somebody listens,
    as far as that can be told at once."""

    def __init__(self, channel: grpc.aio.Channel, is_there: Callable[[], bool]) -> None:
        self._channel = channel
        self._is_there = is_there
        self._expected = False
        self._in_vain_at = float("-inf")
        self._waiting: dict[grpc.aio.Call, float] = {}  # since when
        self._watching: asyncio.Task[None] | None = None

    def expect(self, *, ready: bool) -> None:
        """Whether the records say that the node answers."""
        if ready and not self._expected:
            self._in_vain_at = float("-inf")
        self._expected = ready

    def wanted(self) -> bool:
        """Whether the next call has to wait for a connection, and should."""
        if self._channel.get_state() is _READY or not self._limit(_FAILED):
            return False
        if self._watching is None:
            self._channel.get_state(try_to_connect=True)
        return True

    def grant(self, call: grpc.aio.Call) -> None:
        """It was made with `wait_for_ready`, and is cancelled when the time is over; NodeCalls tells that from a
        cancellation of the caller."""
        self._waiting[call] = time.monotonic()
        call.add_done_callback(self._ended)
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    def _ended(self, call: grpc.aio.Call) -> None:
        self._waiting.pop(call, None)

    async def _watch(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_LOOK_EVERY)
                if (state := self._channel.get_state()) is _READY:
                    self._waiting.clear()
                else:
                    self._end_waiting(state)
        finally:
            self._watching = None

    def _end_waiting(self, state: grpc.ChannelConnectivity) -> None:
        now, limit = time.monotonic(), self._limit(state)
        for call, since in tuple(self._waiting.items()):
            if (waited := now - since) < limit:
                continue
            if waited >= _PATIENCE:
                self._in_vain_at = now
            del self._waiting[call]
            call.cancel()

    def _limit(self, state: grpc.ChannelConnectivity) -> float:
        """Seconds. As soon as the node is not expected any more, calls end as all others do: when an attempt has
        failed."""
        if state is not _FAILED:
            return _PATIENCE
        if self._expected and time.monotonic() - self._in_vain_at >= _NOT_AGAIN:
            return _PATIENCE
        return _MOMENT if self._is_there() else 0.0
