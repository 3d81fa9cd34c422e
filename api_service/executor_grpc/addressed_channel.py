"""A channel whose every call says which executor it is meant for (see common/addressee.py), and waits for a connection
when it should (see patience.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from api_service.executor_grpc.patience import Patience
from common.addressee import ADDRESSEE


class AddressedChannel:
    """What generated stubs need of a channel. `executor_id` may become known later; empty: whoever answers. `admit` is
    asked before each call, with its method, and raises what keeps it from being made."""

    def __init__(self, channel: grpc.aio.Channel, admit: Callable[[str], None], *, on_this_machine: bool) -> None:
        self._channel = channel
        self._admit = admit
        self.executor_id = ""
        self.patience = Patience(channel, on_this_machine=on_this_machine)

    def unary_unary(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, method, self._channel.unary_unary(method, *what, **how))

    def unary_stream(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, method, self._channel.unary_stream(method, *what, **how))

    def stream_unary(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, method, self._channel.stream_unary(method, *what, **how))

    def stream_stream(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, method, self._channel.stream_stream(method, *what, **how))

    def begin(self, method: str, call: Any, *given: Any, **options: Any) -> Any:
        self._admit(method)
        if self.executor_id:
            options["metadata"] = ((ADDRESSEE, self.executor_id),)
        if not self.patience.wanted():
            return call(*given, **options)
        waiting = call(*given, wait_for_ready=True, **options)
        self.patience.grant(waiting)
        return waiting


class _Addressed:
    """One method of one node. There are dozens for each of maybe a thousand: a function with its cells takes five times
    the memory."""

    __slots__ = ("_call", "_channel", "_method")

    def __init__(self, channel: AddressedChannel, method: str, call: Any) -> None:
        self._channel = channel
        self._method = method
        self._call = call

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self._channel.begin(self._method, self._call, *given, **options)
