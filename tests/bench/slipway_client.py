"""Slipway's public API for a program of threads.

The generated stubs are typed for grpc.aio alone; what they do for a plain channel is these few lines.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from slipway.v1 import image_service_pb2 as images

from tests.bench.engine import CALL_TIMEOUT

Answer = TypeVar("Answer", bound=Message)
_CHUNK = 1024 * 1024  # bytes of an archive in one message
_LOAD = "/slipway.v1.ImageService/LoadImage"


class SlipwayClient:
    """One connection, shared by all threads."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}

    def call(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        """`method` is written `ContainerService/StartContainer`. Raises grpc.RpcError."""
        return self.begin(method, request, answer).result()

    def begin(self, method: str, request: Message, answer: type[Answer]) -> grpc.Future[Answer]:
        """The call as a future, its request under way."""
        if (callable_ := self._methods.get(method)) is None:
            callable_ = self._methods[method] = self._channel.unary_unary(
                f"/slipway.v1.{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
        return callable_.future(request, timeout=CALL_TIMEOUT)

    @contextlib.contextmanager
    def read(self, method: str, request: Message, answer: type[Answer]) -> Iterator[Iterator[Answer]]:
        """A stream of answers, cancelled at the end."""
        callable_: grpc.UnaryStreamMultiCallable[Any, Any] = self._channel.unary_stream(
            f"/slipway.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        answers = callable_(request, timeout=CALL_TIMEOUT)
        try:
            yield iter(answers)
        finally:
            answers.cancel()

    @contextlib.contextmanager
    def converse(
        self, method: str, answer: type[Answer]
    ) -> Iterator[tuple[Callable[[Message], None], Iterator[Answer]]]:
        """Streams both ways: what to send with, and the answers. Cancelled at the end."""
        requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        callable_: grpc.StreamStreamMultiCallable[Any, Any] = self._channel.stream_stream(
            f"/slipway.v1.{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        answers = callable_(iter(requests.get, None))
        try:
            yield requests.put, iter(answers)
        finally:
            requests.put(None)
            answers.cancel()

    def load_image(self, archive: Path) -> images.LoadImageResponse:
        load = self._channel.stream_unary(
            _LOAD,
            request_serializer=images.LoadImageRequest.SerializeToString,
            response_deserializer=images.LoadImageResponse.FromString,
        )
        return load(_chunks(archive), timeout=CALL_TIMEOUT)

    def close(self) -> None:
        self._channel.close()


def _chunks(archive: Path) -> Iterator[images.LoadImageRequest]:
    with archive.open("rb") as content:
        while chunk := content.read(_CHUNK):
            yield images.LoadImageRequest(chunk=chunk)
