"""Images."""

from __future__ import annotations

from slipway.executor.v1 import image_store_service_pb2 as pb

from common.errors import InvalidArgument, Violation
from executor_service.operations.image_pull import WantedImage, platform_violations
from executor_service.operations.image_push import ImagePush
from executor_service.registry import source as registry
from executor_service.storage.image_config import Step
from executor_service.storage.image_save import SavedImage, SavedName
from executor_service.storage.images import HERE, Image, PulledImage
from executor_service.storage.layer_progress import LayerPhase, LayerProgress

_LAYER_PHASES = {
    LayerPhase.WAITING: pb.LAYER_PHASE_WAITING,
    LayerPhase.DOWNLOADING: pb.LAYER_PHASE_DOWNLOADING,
    LayerPhase.UNPACKING: pb.LAYER_PHASE_UNPACKING,
    LayerPhase.EXISTS: pb.LAYER_PHASE_EXISTS,
    LayerPhase.DONE: pb.LAYER_PHASE_DONE,
    LayerPhase.PACKING: pb.LAYER_PHASE_PACKING,
    LayerPhase.UPLOADING: pb.LAYER_PHASE_UPLOADING,
    LayerPhase.MOUNTED: pb.LAYER_PHASE_MOUNTED,
}


def image_to_proto(image: Image) -> pb.StoredImage:
    return pb.StoredImage(
        id=image.id,
        config=image.config,
        layers=image.layers,
        size=image.size,
        names=image.names,
        layer_sizes=image.layer_sizes,
    )


def saved_image_from_proto(message: pb.SavedImage) -> SavedImage:
    return SavedImage(
        image_id=message.image_id,
        names=tuple(
            SavedName(repository=name.repository, tag=name.tag, canonical=name.canonical) for name in message.names
        ),
    )


def wanted_image_from_proto(message: pb.PullImageRequest) -> WantedImage:
    return WantedImage(
        endpoints=tuple(_endpoint_from_proto(each) for each in message.endpoints),
        reference=message.reference,
        platform=_platform_from_proto(message.platform),
        name=message.name,
    )


def platform_from_proto(message: pb.LoadImageRequest | pb.ImportImageRequest) -> registry.Platform:
    """Which images of an archive are meant, or what for an imported one is. Raises InvalidArgument."""
    platform = _platform_from_proto(message.platform) if message.HasField("platform") else HERE
    if broken := list(platform_violations(platform)):
        raise InvalidArgument(violations=broken)
    return platform


def step_from_proto(message: pb.ImportImageRequest) -> Step:
    """Raises InvalidArgument."""
    if not message.HasField("created_at"):
        return Step(comment=message.comment)
    try:
        created = message.created_at.ToJsonString()
    except ValueError as error:
        why = "must be a time between the years 1 and 9999"
        raise InvalidArgument(violations=[Violation(field="created_at", description=why)]) from error
    return Step(comment=message.comment, created=created)


def _platform_from_proto(message: pb.ImagePlatform) -> registry.Platform:
    return registry.Platform(os=message.os, architecture=message.architecture, variant=message.variant)


def _endpoint_from_proto(message: pb.RegistryEndpoint) -> registry.Endpoint:
    shown = message.credentials
    return registry.Endpoint(
        host=message.host,
        repository=message.repository,
        plain_http=message.plain_http,
        credentials=registry.Credentials(
            username=shown.username,
            password=shown.password,
            identity_token=shown.identity_token,
            registry_token=shown.registry_token,
        ),
    )


def pull_answer_to_proto(answer: LayerProgress | PulledImage) -> pb.PullImageResponse:
    if isinstance(answer, PulledImage):
        pulled = pb.PulledImage(
            image=image_to_proto(answer.image), digest=answer.digest, index_digest=answer.index_digest
        )
        return pb.PullImageResponse(image=pulled)
    return pb.PullImageResponse(progress=_progress_to_proto(answer))


def push_from_proto(message: pb.PushImageRequest) -> ImagePush:
    return ImagePush(endpoint=_endpoint_from_proto(message.endpoint), image_id=message.image_id, tag=message.tag)


def push_answer_to_proto(answer: LayerProgress | str) -> pb.PushImageResponse:
    """A text is the manifest's digest."""
    if isinstance(answer, str):
        pushed = pb.PushedImage(digest=answer)
        return pb.PushImageResponse(image=pushed)
    return pb.PushImageResponse(progress=_progress_to_proto(answer))


def _progress_to_proto(progress: LayerProgress) -> pb.LayerProgress:
    return pb.LayerProgress(
        digest=progress.digest,
        phase=_LAYER_PHASES[progress.phase],
        done=progress.done,
        total=progress.total,
        retries=progress.retries,
    )
