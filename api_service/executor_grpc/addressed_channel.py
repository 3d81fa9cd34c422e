"""A channel whose every call says which executor it is meant for (see common/addressee.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from common.addressee import ADDRESSEE


class AddressedChannel:
    """What generated stubs need of a channel. `executor_id` may become known later; empty: whoever answers. `admit` is
    asked before each call, with its method, and raises what keeps it from being made."""

    def __init__(self, channel: grpc.aio.Channel, admit: Callable[[str], None]) -> None:
        self._channel = channel
        self._admit = admit
        self.executor_id = ""

    def unary_unary(self, method: str, *what: Any, **how: Any) -> Any:
        return self._addressed(method, self._channel.unary_unary(method, *what, **how))

    def unary_stream(self, method: str, *what: Any, **how: Any) -> Any:
        return self._addressed(method, self._channel.unary_stream(method, *what, **how))

    def stream_unary(self, method: str, *what: Any, **how: Any) -> Any:
        return self._addressed(method, self._channel.stream_unary(method, *what, **how))

    def stream_stream(self, method: str, *what: Any, **how: Any) -> Any:
        return self._addressed(method, self._channel.stream_stream(method, *what, **how))

    def _addressed(self, method: str, begin: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            self._admit(method)
            if not self.executor_id:
                return begin(*given, **options)
            return begin(*given, metadata=((ADDRESSEE, self.executor_id),), **options)

        return call
