"""ImageService: from the message to the operation and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from slipway.v1 import image_service_pb2 as pb2
from slipway.v1 import image_service_pb2_grpc as pb2_grpc

from api_service.conversion import image as conversion
from api_service.deadline import UPLOAD_DEADLINE
from api_service.operations.container_commit import commit_container
from api_service.operations.engine import Engine
from api_service.operations.image_history import list_image_history
from api_service.operations.image_import import import_image
from api_service.operations.image_inspect import inspect_image
from api_service.operations.image_list import list_images
from api_service.operations.image_load import load_image
from api_service.operations.image_prune import prune_images
from api_service.operations.image_pull import pull_image
from api_service.operations.image_push import PushRequest, push_image
from api_service.operations.image_remove import remove_image
from api_service.operations.image_save import save_images
from api_service.operations.image_tag import tag_image
from api_service.servicers.call import Context, deadline_of
from api_service.servicers.streams import chunks_after, first_message


class ImageServicer(pb2_grpc.ImageServiceServicer):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def LoadImage(self, requests: AsyncIterator[pb2.LoadImageRequest], context: Context) -> pb2.LoadImageResponse:
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        request, chunks = await conversion.load_from_proto(requests)
        images = await load_image(self._engine, request, chunks, deadline=deadline)
        return pb2.LoadImageResponse(images=[conversion.image_to_proto(image) for image in images])

    async def ImportImage(
        self, requests: AsyncIterator[pb2.ImportImageRequest], context: Context
    ) -> pb2.ImportImageResponse:
        request = conversion.import_from_proto((await first_message(requests, "header")).header)
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        image = await import_image(self._engine, request, chunks_after(requests, "header"), deadline=deadline)
        return pb2.ImportImageResponse(image=conversion.image_to_proto(image))

    async def PullImage(self, request: pb2.PullImageRequest, context: Context) -> AsyncGenerator[pb2.PullImageResponse]:
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        pulling = pull_image(self._engine, conversion.pull_from_proto(request), deadline=deadline)
        async with aclosing(pulling) as answers:
            async for answer in answers:
                yield conversion.pull_answer_to_proto(answer)

    async def CommitContainer(
        self, request: pb2.CommitContainerRequest, context: Context
    ) -> pb2.CommitContainerResponse:
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        image = await commit_container(self._engine, conversion.commit_from_proto(request), deadline=deadline)
        return pb2.CommitContainerResponse(image=conversion.image_to_proto(image))

    async def PushImage(self, request: pb2.PushImageRequest, context: Context) -> AsyncGenerator[pb2.PushImageResponse]:
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        push = PushRequest(image=request.image, credentials=conversion.credentials_from_proto(request.credentials))
        async with aclosing(push_image(self._engine, push, deadline=deadline)) as answers:
            async for answer in answers:
                yield conversion.push_answer_to_proto(answer)

    async def ListImages(self, request: pb2.ListImagesRequest, context: Context) -> pb2.ListImagesResponse:
        images = await list_images(self._engine, conversion.image_filter_from_proto(request))
        return pb2.ListImagesResponse(images=[conversion.image_to_proto(image) for image in images])

    async def InspectImage(self, request: pb2.InspectImageRequest, context: Context) -> pb2.InspectImageResponse:
        image = await inspect_image(self._engine, request.image)
        return pb2.InspectImageResponse(image=conversion.image_to_proto(image))

    async def TagImage(self, request: pb2.TagImageRequest, context: Context) -> pb2.TagImageResponse:
        await tag_image(self._engine, request.image, request.target)
        return pb2.TagImageResponse()

    async def RemoveImage(self, request: pb2.RemoveImageRequest, context: Context) -> pb2.RemoveImageResponse:
        removed = await remove_image(self._engine, request.image, force=request.force, deadline=deadline_of(context))
        return conversion.removed_to_proto(removed)

    async def ListImageHistory(
        self, request: pb2.ListImageHistoryRequest, context: Context
    ) -> pb2.ListImageHistoryResponse:
        entries = await list_image_history(self._engine, request.image, deadline=deadline_of(context))
        return pb2.ListImageHistoryResponse(entries=[conversion.history_to_proto(entry) for entry in entries])

    async def PruneImages(self, request: pb2.PruneImagesRequest, context: Context) -> pb2.PruneImagesResponse:
        wanted = conversion.prune_filter_from_proto(request)
        pruned = await prune_images(self._engine, wanted, deadline=deadline_of(context, default=UPLOAD_DEADLINE))
        return conversion.pruned_to_proto(pruned)

    async def SaveImage(self, request: pb2.SaveImageRequest, context: Context) -> AsyncGenerator[pb2.SaveImageResponse]:
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        async with aclosing(save_images(self._engine, request.images, deadline=deadline)) as chunks:
            async for chunk in chunks:
                yield pb2.SaveImageResponse(chunk=chunk)
