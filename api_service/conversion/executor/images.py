"""Images, and the ways they come to a node and leave it."""

from __future__ import annotations

from slipway.executor.v1 import image_store_service_pb2 as pb2

from api_service.conversion.times import timestamp
from api_service.executor_client.images import (
    CommitSpec,
    ImportSpec,
    LayerPhase,
    LayerProgress,
    Platform,
    PulledImage,
    PullSpec,
    PushedImage,
    PushSpec,
    RegistryEndpoint,
    SavedImage,
    StoredImage,
)

_PHASES = {
    pb2.LAYER_PHASE_WAITING: LayerPhase.WAITING,
    pb2.LAYER_PHASE_DOWNLOADING: LayerPhase.DOWNLOADING,
    pb2.LAYER_PHASE_UNPACKING: LayerPhase.UNPACKING,
    pb2.LAYER_PHASE_EXISTS: LayerPhase.EXISTS,
    pb2.LAYER_PHASE_DONE: LayerPhase.DONE,
    pb2.LAYER_PHASE_PACKING: LayerPhase.PACKING,
    pb2.LAYER_PHASE_UPLOADING: LayerPhase.UPLOADING,
    pb2.LAYER_PHASE_MOUNTED: LayerPhase.MOUNTED,
}


def pull_to_proto(spec: PullSpec) -> pb2.PullImageRequest:
    return pb2.PullImageRequest(
        endpoints=[_endpoint_to_proto(each) for each in spec.endpoints],
        reference=spec.reference,
        platform=platform_to_proto(spec.platform),
        name=spec.name,
    )


def platform_to_proto(platform: Platform) -> pb2.ImagePlatform:
    return pb2.ImagePlatform(os=platform.os, architecture=platform.architecture, variant=platform.variant)


def import_to_proto(spec: ImportSpec) -> pb2.ImportImageRequest:
    return pb2.ImportImageRequest(
        config=spec.config,
        created_at=timestamp(spec.created),
        comment=spec.comment,
        platform=platform_to_proto(spec.platform),
    )


def _endpoint_to_proto(endpoint: RegistryEndpoint) -> pb2.RegistryEndpoint:
    shown = endpoint.credentials
    return pb2.RegistryEndpoint(
        host=endpoint.host,
        repository=endpoint.repository,
        plain_http=endpoint.plain_http,
        credentials=pb2.RegistryCredentials(
            username=shown.username,
            password=shown.password,
            identity_token=shown.identity_token,
            registry_token=shown.registry_token,
        ),
    )


def pull_answer_from_proto(message: pb2.PullImageResponse) -> LayerProgress | PulledImage:
    if message.HasField("image"):
        pulled = message.image
        image = stored_image_from_proto(pulled.image)
        return PulledImage(image=image, digest=pulled.digest, index_digest=pulled.index_digest)
    return _progress_from_proto(message.progress)


def commit_to_proto(spec: CommitSpec) -> pb2.CommitContainerRequest:
    return pb2.CommitContainerRequest(
        container_id=spec.container_id,
        config=spec.config,
        author=spec.author,
        comment=spec.comment,
        pause=spec.pause,
    )


def push_to_proto(spec: PushSpec) -> pb2.PushImageRequest:
    return pb2.PushImageRequest(endpoint=_endpoint_to_proto(spec.endpoint), image_id=spec.image_id, tag=spec.tag)


def push_answer_from_proto(message: pb2.PushImageResponse) -> LayerProgress | PushedImage:
    if message.HasField("image"):
        return PushedImage(digest=message.image.digest)
    return _progress_from_proto(message.progress)


def _progress_from_proto(progress: pb2.LayerProgress) -> LayerProgress:
    return LayerProgress(
        digest=progress.digest,
        phase=_PHASES[progress.phase],
        done=progress.done,
        total=progress.total,
        retries=progress.retries,
    )


def saved_image_to_proto(image: SavedImage) -> pb2.SavedImage:
    return pb2.SavedImage(
        image_id=image.image_id,
        names=[
            pb2.SavedName(repository=name.repository, tag=name.tag, canonical=name.canonical) for name in image.names
        ],
    )


def stored_image_from_proto(message: pb2.StoredImage) -> StoredImage:
    return StoredImage(
        id=message.id,
        config=message.config,
        layers=tuple(message.layers),
        size=message.size,
        names=tuple(message.names),
        layer_sizes=tuple(message.layer_sizes),
    )
