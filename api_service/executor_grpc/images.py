"""The images of a node over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import grpc
from slipway.executor.v1 import image_store_service_pb2 as pb2
from slipway.executor.v1.image_store_service_pb2_grpc import ImageStoreServiceStub

from api_service.conversion.executor import images as conversion
from api_service.deadline import Deadline
from api_service.executor_client.images import (
    CommitSpec,
    ImportSpec,
    LayerProgress,
    NodeImages,
    Platform,
    PulledImage,
    PullSpec,
    PushedImage,
    PushSpec,
    SavedImage,
    StoredImage,
)
from api_service.executor_grpc.calls import NodeCalls


class GrpcImages:
    def __init__(self, channel: grpc.aio.Channel, calls: NodeCalls) -> None:
        self._images = ImageStoreServiceStub(channel)
        self._calls = calls

    async def load(
        self, platform: Platform, chunks: AsyncIterator[bytes], *, deadline: Deadline
    ) -> Sequence[StoredImage]:
        async def requests() -> AsyncIterator[pb2.LoadImageRequest]:
            yield pb2.LoadImageRequest(platform=conversion.platform_to_proto(platform))
            async for chunk in chunks:
                yield pb2.LoadImageRequest(chunk=chunk)

        answer = await self._calls.upload(self._images.LoadImage(timeout=deadline.remaining), requests())
        return [conversion.stored_image_from_proto(image) for image in answer.images]

    async def import_image(self, spec: ImportSpec, chunks: AsyncIterator[bytes], *, deadline: Deadline) -> StoredImage:
        async def requests() -> AsyncIterator[pb2.ImportImageRequest]:
            yield conversion.import_to_proto(spec)
            async for chunk in chunks:
                yield pb2.ImportImageRequest(chunk=chunk)

        answer = await self._calls.upload(self._images.ImportImage(timeout=deadline.remaining), requests())
        return conversion.stored_image_from_proto(answer.image)

    async def commit(self, spec: CommitSpec, *, deadline: Deadline) -> StoredImage:
        request = conversion.commit_to_proto(spec)
        answer = await self._calls.answer(self._images.CommitContainer(request, timeout=deadline.remaining))
        return conversion.stored_image_from_proto(answer.image)

    async def pull(self, spec: PullSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PulledImage]:
        call = self._images.PullImage(conversion.pull_to_proto(spec), timeout=deadline.remaining)
        with self._calls.stream(call):
            async for message in call:
                yield conversion.pull_answer_from_proto(message)

    async def push(self, spec: PushSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PushedImage]:
        call = self._images.PushImage(conversion.push_to_proto(spec), timeout=deadline.remaining)
        with self._calls.stream(call):
            async for message in call:
                yield conversion.push_answer_from_proto(message)

    async def save(self, images: Sequence[SavedImage], *, deadline: Deadline) -> AsyncGenerator[bytes]:
        request = pb2.SaveImagesRequest(images=map(conversion.saved_image_to_proto, images))
        call = self._images.SaveImages(request, timeout=deadline.remaining)
        with self._calls.stream(call):
            async for message in call:
                yield message.chunk

    async def get(self, image_id: str, *, deadline: Deadline) -> StoredImage:
        request = pb2.GetImageRequest(image_id=image_id)
        answer = await self._calls.answer(self._images.GetImage(request, timeout=deadline.remaining))
        return conversion.stored_image_from_proto(answer.image)

    async def list(self, *, deadline: Deadline) -> Sequence[StoredImage]:
        request = pb2.ListImagesRequest()
        answer = await self._calls.answer(self._images.ListImages(request, timeout=deadline.remaining))
        return [conversion.stored_image_from_proto(image) for image in answer.images]

    async def remove(self, image_id: str, *, deadline: Deadline) -> None:
        request = pb2.RemoveImageRequest(image_id=image_id)
        await self._calls.answer(self._images.RemoveImage(request, timeout=deadline.remaining))


_: type[NodeImages] = GrpcImages
