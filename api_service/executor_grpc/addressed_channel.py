"""A channel whose every call says by which terms it is made (see common/call_terms.py), and waits for a connection when
it should (see patience.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc

from api_service.executor_grpc.patience import Patience
from common.addresses import is_listened_on
from common.call_terms import ADDRESSEE, SPOKEN
from common.protocol_version import OURS

_ANYBODY = ((SPOKEN, OURS.written),)


class AddressedChannel:
    """What generated stubs need of a channel. Until it is known whom calls are `meant_for` they are for whoever
    answers."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self._channel = channel
        self._terms: tuple[tuple[str, str], ...] = _ANYBODY
        self.patience = Patience(channel, partial(is_listened_on, address))

    def meant_for(self, executor_id: str) -> None:
        """Empty: for whoever answers."""
        self._terms = (*_ANYBODY, (ADDRESSEE, executor_id)) if executor_id else _ANYBODY

    def unary_unary(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, self._channel.unary_unary(method, *what, **how))

    def unary_stream(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, self._channel.unary_stream(method, *what, **how))

    def stream_unary(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, self._channel.stream_unary(method, *what, **how))

    def stream_stream(self, method: str, *what: Any, **how: Any) -> Any:
        return _Addressed(self, self._channel.stream_stream(method, *what, **how))

    def begin(self, call: Any, *given: Any, **options: Any) -> Any:
        options["metadata"] = self._terms
        if not self.patience.wanted():
            return call(*given, **options)
        waiting = call(*given, wait_for_ready=True, **options)
        self.patience.grant(waiting)
        return waiting


class _Addressed:
    """One method of one node. There are dozens for each of maybe a thousand: a function with its cells takes five times
    the memory."""

    __slots__ = ("_call", "_channel")

    def __init__(self, channel: AddressedChannel, call: Any) -> None:
        self._channel = channel
        self._call = call

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self._channel.begin(self._call, *given, **options)
