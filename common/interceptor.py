"""The one server interceptor: gives every call an id, asks whether the caller may, checks the request's own rules, and
turns errors into statuses.

An expected error (`SlipwayError`) is answered with its code and details. Anything else is a bug: the log gets the
traceback under the call's id, the client gets INTERNAL with that id and nothing more.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status

from common.callers import Callers
from common.errors import SlipwayError
from common.request_rules import RequestRules
from common.rpc_status import status_of

_log = structlog.get_logger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler, unary and streaming. Stateless but for the compiled rules; give the same `rules` to a
    handler that defers some of them. `callers`: who may call; None: whoever can connect."""

    def __init__(self, rules: RequestRules | None = None, callers: Callers | None = None) -> None:
        self._rules = rules if rules is not None else RequestRules()
        self._callers = callers

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or (self._callers is None and not method.startswith("/slipway.")):
            return handler
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **codec)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._unary(method, handler.stream_unary), **codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), **codec)
        return grpc.stream_stream_rpc_method_handler(self._stream(method, handler.stream_stream), **codec)

    def _unary(self, method: str, behavior: Any) -> Any:
        async def call(request: Any, context: _Context) -> Any:
            with _Call(method) as running:
                try:
                    async with self._admitted(method, context):
                        return await behavior(self._checked(request), context)
                except Exception as error:
                    await running.abort(context, error)

        return call

    def _stream(self, method: str, behavior: Any) -> Any:
        async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
            with _Call(method) as running:
                try:
                    async with self._admitted(method, context):
                        answers = behavior(self._checked(request), context)
                        if inspect.iscoroutine(answers):  # it writes to the context itself, as Health/Watch does
                            await answers
                            return
                        # Closed here and now: a call that was broken off leaves nothing to the garbage collector.
                        async with aclosing(answers) as responses:
                            async for response in responses:
                                yield response
                except Exception as error:
                    await running.abort(context, error)

        return call

    def _admitted(self, method: str, context: _Context) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._callers is None else self._callers.admitted(method, context)

    def _checked(self, request: Any) -> Any:
        if not isinstance(request, Message):
            return self._checked_stream(request)
        self._rules.check(request)
        return request

    async def _checked_stream(self, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for request in requests:
            yield self._checked(request)


class _Call:
    """One call's id, log context and outcome."""

    def __init__(self, method: str) -> None:
        self.id = secrets.token_hex(8)
        self._method = method.removeprefix("/")
        self._outcome = "OK"
        self._began = time.perf_counter()

    def __enter__(self) -> _Call:
        structlog.contextvars.bind_contextvars(call=self.id)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._outcome = "CANCELLED"
        milliseconds = round((time.perf_counter() - self._began) * 1000, 2)
        _log.info("call", method=self._method, outcome=self._outcome, milliseconds=milliseconds)
        structlog.contextvars.unbind_contextvars("call", "caller")

    async def abort(self, context: _Context, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        known = error if isinstance(error, SlipwayError) else self._unexpected(error)
        status = status_of(known)
        self._outcome = f"{known.reason}: {known.message}"
        await context.abort_with_status(rpc_status.to_status(status))

    def _unexpected(self, error: Exception) -> SlipwayError:
        _log.error("unexpected error", method=self._method, exc_info=error)
        return SlipwayError(
            f"the service failed in a way it did not expect; its log has the cause under call={self.id}",
            reason="INTERNAL",
            metadata={"call": self.id},
        )
