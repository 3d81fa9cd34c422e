"""A channel whose every call says which executor it is meant for (see common/addressee.py)."""

from __future__ import annotations

from typing import Any

import grpc

from common.addressee import ADDRESSEE


class AddressedChannel:
    """What generated stubs need of a channel. `executor_id` may become known later; empty: whoever answers."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.executor_id = ""

    def unary_unary(self, *what: Any, **how: Any) -> Any:
        return self._addressed(self._channel.unary_unary(*what, **how))

    def unary_stream(self, *what: Any, **how: Any) -> Any:
        return self._addressed(self._channel.unary_stream(*what, **how))

    def stream_unary(self, *what: Any, **how: Any) -> Any:
        return self._addressed(self._channel.stream_unary(*what, **how))

    def stream_stream(self, *what: Any, **how: Any) -> Any:
        return self._addressed(self._channel.stream_stream(*what, **how))

    def _addressed(self, method: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            if not self.executor_id:
                return method(*given, **options)
            return method(*given, metadata=((ADDRESSEE, self.executor_id),), **options)

        return call
