"""Calls of a node's executor: how long answers and uploads are waited for, and what their errors mean.

Every error comes back as one of `common.errors`; a node that does not answer says so by name, with its address and what
to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TypeVar

import grpc

from api_service.executor_client.images import OF_REGISTRIES
from api_service.executor_client.node import OTHER_EXECUTOR_WAY_OUT
from api_service.executor_client.protocol import incompatible
from common.call_terms import ANOTHER_EXECUTOR
from common.callers import REFUSED_IDENTITIES
from common.errors import SlipwayError, Unavailable
from common.protocol_version import NODE_INCOMPATIBLE, ProtocolRange
from common.rpc_status import error_from

T = TypeVar("T")
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_RETRY_AFTER = 1.0  # seconds
_LEASE_OVER = "LEASE_OVER"  # the executor's reason: what it is asked for may not run there just now


class NodeCalls:
    def __init__(self, *, node: str, address: str) -> None:
        self._node = node
        self._address = address

    async def answer(self, call: Awaitable[T]) -> T:
        with self._errors():
            return await call

    @contextlib.contextmanager
    def stream(self, call: grpc.aio.Call) -> Iterator[None]:
        """For a block that reads the answers; the call ends with it."""
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            yield

    async def upload(
        self, call: grpc.aio.StreamUnaryCall[RequestT, ResponseT], requests: AsyncIterator[RequestT]
    ) -> ResponseT:
        """Each write waits until the node has room, so the caller is read no faster than the node takes it in."""
        sending = asyncio.create_task(_send(call, requests))

        def end_sending(_: object) -> None:
            sending.cancel()

        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            stack.callback(sending.cancel)
            # A node may answer before the end. grpc.aio lets a write that fails then overwrite the answer's status with
            # one of its own, so none may be under way any more when the status comes.
            call.add_done_callback(end_sending)
            await asyncio.wait({sending})
            if not sending.cancelled():
                sending.result()
            return await call

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # It was the call that was cancelled: with its channel, as the peer's authority is no longer trusted or its
            # certificate has ended, or because it has waited long enough for a connection.
            raise self._unavailable(Unavailable("its connection was given up, or could not be made")) from error
        except grpc.aio.AioRpcError as error:
            known = error_from(error)
            if known.reason in REFUSED_IDENTITIES:
                raise self._refused(known) from error
            if known.reason == ANOTHER_EXECUTOR:
                raise self._another(known) from error
            if known.reason == NODE_INCOMPATIBLE:
                raise self._incompatible(known) from error
            if type(known) is not Unavailable or known.reason in (*OF_REGISTRIES, _LEASE_OVER):
                raise known from error
            raise self._unavailable(known) from error

    def _refused(self, error: SlipwayError) -> Unavailable:
        """It is this service that the node refuses, not the one who calls it."""
        return Unavailable(
            f"node {self._node!r}: its executor at {self._address} refuses this service: {error.message}",
            retry_after=_RETRY_AFTER,
            reason="NODE_REFUSES",
            metadata={"node": self._node, "address": self._address, "because": error.reason},
        )

    def _another(self, error: SlipwayError) -> Unavailable:
        return Unavailable(
            f"node {self._node!r}: another executor than the node's answers at {self._address} ({error.message}); "
            f"{OTHER_EXECUTOR_WAY_OUT}",
            reason=ANOTHER_EXECUTOR,
            metadata={"node": self._node, "address": self._address},
        )

    def _incompatible(self, error: SlipwayError) -> SlipwayError:
        theirs = ProtocolRange.read(error.metadata.get("executor_protocol", ""))
        return incompatible(self._node, version=error.metadata.get("executor_version", ""), theirs=theirs)

    def _unavailable(self, error: Unavailable) -> Unavailable:
        return Unavailable(
            f"node {self._node!r}: its executor at {self._address} does not answer ({error.message}); start it "
            "(python -m executor_service, as root) or look at its log, then repeat the request",
            retry_after=error.retry_after or _RETRY_AFTER,
            reason="NODE_UNAVAILABLE",
            metadata={"node": self._node, "address": self._address},
        )


async def _send(call: grpc.aio.StreamUnaryCall[RequestT, ResponseT], requests: AsyncIterator[RequestT]) -> None:
    """To the end, or until the node takes no more; its answer says why."""
    async for request in requests:
        try:
            await call.write(request)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            return
    with contextlib.suppress(asyncio.InvalidStateError):
        await call.done_writing()
