"""What calls of a node do while this service has no connection to it: they fail at once, or wait for a few seconds.

A node is on record as ready when one API service has a connection. Each of the others makes its own when a request
needs it, which is no reason to refuse that request: a link may have been mended this moment. Who is known not to answer
is not waited for.
"""

from __future__ import annotations

import asyncio
import time

import grpc

_PATIENCE = 4.0  # seconds; more than gRPC gives one attempt to connect, and less than whoever asks for facts waits
_LOOK_EVERY = 0.05  # seconds; gRPC tells of its connection's states only to who waits without end
_FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_NOT_AGAIN = 1.0  # seconds after waiting in vain, for requests that make several calls


class Patience:
    """Of one channel. `wanted` before a call, `grant` for it when that was true."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._expected = False
        self._in_vain_at = float("-inf")
        self._waiting: set[grpc.aio.Call] = set()
        self._watching: asyncio.Task[None] | None = None

    def expect(self, *, ready: bool) -> None:
        """Whether the records say that the node answers."""
        if ready and not self._expected:
            self._in_vain_at = float("-inf")
        self._expected = ready

    def wanted(self) -> bool:
        """Whether the next call has to wait for a connection, and should."""
        if not self._expected or self._channel.get_state() is grpc.ChannelConnectivity.READY:
            return False
        if self._watching is not None:
            return True
        if time.monotonic() - self._in_vain_at < _NOT_AGAIN:
            return False
        self._channel.get_state(try_to_connect=True)
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return True

    def grant(self, call: grpc.aio.Call) -> None:
        """It was made with `wait_for_ready`, and is cancelled when the time is over; NodeCalls tells that from a
        cancellation of the caller."""
        self._waiting.add(call)
        call.add_done_callback(lambda _: self._waiting.discard(call))

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        """As soon as the node is not expected any more, calls end as all others do: when an attempt has failed."""
        over = time.monotonic() + _PATIENCE
        state = self._channel.get_state()
        try:
            while time.monotonic() < over and (self._expected or state is not _FAILED):
                await asyncio.sleep(_LOOK_EVERY)
                if (state := self._channel.get_state()) is grpc.ChannelConnectivity.READY:
                    self._waiting.clear()
                    return
            self._in_vain_at = time.monotonic()
            waiting, self._waiting = self._waiting, set()
            for call in waiting:
                call.cancel()
        finally:
            self._watching = None
