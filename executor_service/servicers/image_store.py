"""`slipway.executor.v1.ImageStoreService`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
from slipway.executor.v1 import image_store_service_pb2 as pb
from slipway.executor.v1 import image_store_service_pb2_grpc

from common.errors import InvalidArgument, Violation
from executor_service.conversion.images import (
    image_to_proto,
    platform_from_proto,
    pull_answer_to_proto,
    push_answer_to_proto,
    push_from_proto,
    saved_image_from_proto,
    step_from_proto,
    wanted_image_from_proto,
)
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.operations.container_commit import Commit, container_commit
from executor_service.operations.image_pull import check_wanted_image, image_pull
from executor_service.operations.image_push import check_push, image_push
from executor_service.operations.image_remove import image_remove
from executor_service.storage.image_save import saved
from executor_service.storage.images import PulledImage
from executor_service.tasks import Operations
from executor_service.transfers import Transfers

_CHUNK = 1 << 20  # bytes of an archive in one message
_LONGEST = 3600.0  # seconds that a caller is believed to wait

_Context = grpc.aio.ServicerContext[Any, Any]


class ImageStoreServicer(image_store_service_pb2_grpc.ImageStoreServiceServicer):
    def __init__(self, node: Node, operations: Operations) -> None:
        self._node = node
        self._operations = operations
        self._pulls: Transfers[PulledImage] = Transfers(operations)
        self._pushes: Transfers[str] = Transfers(operations)

    async def LoadImage(
        self, request_iterator: AsyncIterator[pb.LoadImageRequest], context: _Context
    ) -> pb.LoadImageResponse:
        requests = aiter(request_iterator)
        first = await anext(requests, pb.LoadImageRequest())
        platform = platform_from_proto(first)
        with host_errors("image"):
            loading = self._node.seams.images.load(_all_chunks(first, requests), platform)
            images = await self._operations.run(loading, abandoned="cancel")
        return pb.LoadImageResponse(images=[image_to_proto(image) for image in images])

    async def ImportImage(
        self, request_iterator: AsyncIterator[pb.ImportImageRequest], context: _Context
    ) -> pb.ImportImageResponse:
        requests = aiter(request_iterator)
        header = await anext(requests, None)
        if header is None or header.WhichOneof("payload") != "config":
            raise InvalidArgument(violations=[Violation(field="config", description="must be the first message")])
        config, platform, step = _object(header.config), platform_from_proto(header), step_from_proto(header)
        archive = (_chunk(request) async for request in requests)
        with host_errors("image"):
            importing = self._node.seams.images.import_rootfs(archive, config=config, platform=platform, step=step)
            image = await self._operations.run(importing, abandoned="cancel")
        return pb.ImportImageResponse(image=image_to_proto(image))

    async def CommitContainer(
        self, request: pb.CommitContainerRequest, context: _Context
    ) -> pb.CommitContainerResponse:
        commit = Commit(
            container_id=request.container_id,
            config=_object(request.config),
            author=request.author,
            comment=request.comment,
            pause=request.pause,
        )
        image = await self._operations.run(container_commit(self._node, commit), abandoned="cancel")
        return pb.CommitContainerResponse(image=image_to_proto(image))

    async def PullImage(self, request: pb.PullImageRequest, context: _Context) -> AsyncGenerator[pb.PullImageResponse]:
        wanted = wanted_image_from_proto(request)
        check_wanted_image(wanted)
        pulling = self._pulls.follow(wanted, partial(image_pull, self._node, wanted), deadline=_deadline(context))
        async with aclosing(pulling) as answers:
            async for answer in answers:
                yield pull_answer_to_proto(answer)

    async def SaveImages(
        self, request: pb.SaveImagesRequest, context: _Context
    ) -> AsyncGenerator[pb.SaveImagesResponse]:
        wanted = [saved_image_from_proto(image) for image in request.images]
        with host_errors("image"):
            async with aclosing(saved(self._node.seams.images, wanted)) as chunks:
                async for chunk in chunks:
                    for start in range(0, len(chunk), _CHUNK):
                        yield pb.SaveImagesResponse(chunk=chunk[start : start + _CHUNK])

    async def PushImage(self, request: pb.PushImageRequest, context: _Context) -> AsyncGenerator[pb.PushImageResponse]:
        push = push_from_proto(request)
        check_push(push)
        pushing = self._pushes.follow(push, partial(image_push, self._node, push), deadline=_deadline(context))
        async with aclosing(pushing) as answers:
            async for answer in answers:
                yield push_answer_to_proto(answer)

    async def GetImage(self, request: pb.GetImageRequest, context: _Context) -> pb.GetImageResponse:
        return pb.GetImageResponse(image=image_to_proto(await self._node.seams.images.get(request.image_id)))

    async def ListImages(self, request: pb.ListImagesRequest, context: _Context) -> pb.ListImagesResponse:
        images = await self._node.seams.images.list()
        return pb.ListImagesResponse(images=[image_to_proto(image) for image in images])

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: _Context) -> pb.RemoveImageResponse:
        await self._operations.run(image_remove(self._node, request.image_id), abandoned="finish")
        return pb.RemoveImageResponse()


def _deadline(context: _Context) -> float:
    """Of the call, in seconds of `time.monotonic()`."""
    remaining = context.time_remaining()
    return time.monotonic() + (_LONGEST if remaining is None else min(remaining, _LONGEST))


def _object(text: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(text or b"{}")
    except ValueError as error:
        raise _no_object(str(error)) from error
    if not isinstance(value, dict):
        raise _no_object(f"it is a {type(value).__name__}")
    return value


def _no_object(why: str) -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field="config", description=f"must be a JSON object: {why}")])


async def _all_chunks(first: pb.LoadImageRequest, rest: AsyncIterator[pb.LoadImageRequest]) -> AsyncIterator[bytes]:
    yield first.chunk
    async for request in rest:
        yield request.chunk


def _chunk(request: pb.ImportImageRequest) -> bytes:
    if request.WhichOneof("payload") == "config":
        raise InvalidArgument(violations=[Violation(field="config", description="must not come twice")])
    return request.chunk
