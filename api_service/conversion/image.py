"""Between the messages about images and the records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache

from slipway.v1 import container_pb2
from slipway.v1 import image_service_pb2 as image_pb2

from api_service.conversion.times import moment, optional_timestamp
from api_service.executor_client.images import LayerPhase, LayerProgress, PushedImage, RegistryCredentials
from api_service.operations.container_commit import CommitRequest
from api_service.operations.image_history import HistoryEntry
from api_service.operations.image_import import ImportRequest
from api_service.operations.image_list import ImageFilter
from api_service.operations.image_load import LoadRequest
from api_service.operations.image_prune import ImagePruneFilter, PrunedImages
from api_service.operations.image_pull import PullRequest
from api_service.operations.image_remove import RemovedImage
from api_service.operations.pulls_together import PulledRecord
from api_service.records.config import ImageConfig
from api_service.records.image import ImageRecord
from common.errors import Violation
from common.request_rules import RequestRules

_IMAGES_KEPT = 128  # whose rules were asked last
_PHASES = {
    LayerPhase.WAITING: image_pb2.LAYER_PHASE_WAITING,
    LayerPhase.DOWNLOADING: image_pb2.LAYER_PHASE_DOWNLOADING,
    LayerPhase.UNPACKING: image_pb2.LAYER_PHASE_UNPACKING,
    LayerPhase.EXISTS: image_pb2.LAYER_PHASE_EXISTS,
    LayerPhase.DONE: image_pb2.LAYER_PHASE_DONE,
    LayerPhase.PACKING: image_pb2.LAYER_PHASE_PACKING,
    LayerPhase.UPLOADING: image_pb2.LAYER_PHASE_UPLOADING,
    LayerPhase.MOUNTED: image_pb2.LAYER_PHASE_MOUNTED,
}


def image_to_proto(image: ImageRecord) -> image_pb2.Image:
    return image_pb2.Image(
        id=image.id,
        repo_tags=image.names,
        repo_digests=image.digests,
        created_at=optional_timestamp(image.created),
        size=image.size,
        architecture=image.architecture,
        os=image.os,
        config=image_pb2.ImageConfig(
            user=image.config.user,
            env=image.config.env,
            entrypoint=image.config.entrypoint,
            cmd=image.config.cmd,
            working_dir=image.config.working_dir,
            labels=dict(image.config.labels),
            exposed_ports=image.config.exposed_ports,
            stop_signal=image.config.stop_signal,
            volumes=image.config.volumes,
        ),
        layers=image.layers,
    )


async def load_from_proto(
    requests: AsyncIterator[image_pb2.LoadImageRequest],
) -> tuple[LoadRequest, AsyncIterator[bytes]]:
    """What the first message says, and all chunks."""
    first = await anext(requests, image_pb2.LoadImageRequest())

    async def chunks() -> AsyncIterator[bytes]:
        yield first.chunk
        async for request in requests:
            yield request.chunk

    return LoadRequest(node=first.node, platform=first.platform), chunks()


def import_from_proto(header: image_pb2.ImportImageHeader) -> ImportRequest:
    return ImportRequest(
        reference=header.reference,
        config=image_config_from_proto(header.config),
        platform=header.platform,
        message=header.message,
        node=header.node,
    )


def image_config_from_proto(message: image_pb2.ImageConfig) -> ImageConfig:
    return ImageConfig(
        user=message.user,
        env=tuple(message.env),
        entrypoint=tuple(message.entrypoint),
        cmd=tuple(message.cmd),
        working_dir=message.working_dir,
        labels=dict(message.labels),
        exposed_ports=tuple(message.exposed_ports),
        stop_signal=message.stop_signal,
        volumes=tuple(message.volumes),
    )


def image_rules(rules: RequestRules) -> Callable[[ImageConfig], list[Violation]]:
    """What an image says is held to the rules that a request's message states for the same fields."""

    # Every create asks this of its image, and there are few of them.
    @lru_cache(_IMAGES_KEPT)
    def broken(
        user: str, env: tuple[str, ...], entrypoint: tuple[str, ...], cmd: tuple[str, ...], working_dir: str
    ) -> Sequence[Violation]:
        message = container_pb2.ContainerConfig(
            image="-",  # required of a request, and not the image's to say
            user=user,
            env=env,
            entrypoint=entrypoint,
            cmd=cmd,
            working_dir=working_dir,
        )
        return [
            Violation(field=f"config.{rule.field}", description=rule.description) for rule in rules.violations(message)
        ]

    def violations(config: ImageConfig) -> list[Violation]:
        return list(broken(config.user, config.env, config.entrypoint, config.cmd, config.working_dir))

    return violations


def image_filter_from_proto(message: image_pb2.ListImagesRequest) -> ImageFilter:
    return ImageFilter(
        references=tuple(message.reference),
        labels=tuple(message.label),
        dangling=message.dangling if message.HasField("dangling") else None,
        before=message.before,
        since=message.since,
    )


def commit_from_proto(message: image_pb2.CommitContainerRequest) -> CommitRequest:
    return CommitRequest(
        container=message.container,
        reference=message.reference,
        config=image_config_from_proto(message.config),
        author=message.author,
        comment=message.comment,
        pause=message.pause if message.HasField("pause") else True,
    )


def pull_from_proto(message: image_pb2.PullImageRequest) -> PullRequest:
    return PullRequest(
        reference=message.reference,
        platform=message.platform,
        credentials=credentials_from_proto(message.credentials),
        node=message.node,
    )


def credentials_from_proto(shown: image_pb2.RegistryCredentials) -> RegistryCredentials:
    return RegistryCredentials(
        username=shown.username,
        password=shown.password,
        identity_token=shown.identity_token,
        registry_token=shown.registry_token,
    )


def pull_answer_to_proto(answer: LayerProgress | PulledRecord) -> image_pb2.PullImageResponse:
    if isinstance(answer, PulledRecord):
        pulled = image_pb2.PulledImage(image=image_to_proto(answer.image), digest=answer.digest)
        return image_pb2.PullImageResponse(image=pulled)
    return image_pb2.PullImageResponse(progress=_progress_to_proto(answer))


def push_answer_to_proto(answer: LayerProgress | PushedImage) -> image_pb2.PushImageResponse:
    if isinstance(answer, PushedImage):
        return image_pb2.PushImageResponse(image=image_pb2.PushedImage(digest=answer.digest))
    return image_pb2.PushImageResponse(progress=_progress_to_proto(answer))


def _progress_to_proto(progress: LayerProgress) -> image_pb2.LayerProgress:
    return image_pb2.LayerProgress(
        digest=progress.digest,
        phase=_PHASES[progress.phase],
        done=progress.done,
        total=progress.total,
        retries=progress.retries,
    )


def removed_to_proto(removed: RemovedImage) -> image_pb2.RemoveImageResponse:
    return image_pb2.RemoveImageResponse(untagged=removed.untagged, deleted=removed.deleted)


def history_to_proto(entry: HistoryEntry) -> image_pb2.ImageHistoryEntry:
    return image_pb2.ImageHistoryEntry(
        id=entry.id,
        created_at=optional_timestamp(entry.created),
        created_by=entry.created_by,
        size=entry.size,
        comment=entry.comment,
        tags=entry.tags,
    )


def prune_filter_from_proto(message: image_pb2.PruneImagesRequest) -> ImagePruneFilter:
    return ImagePruneFilter(
        dangling=message.dangling if message.HasField("dangling") else True,
        labels=tuple(message.label),
        until=moment(message.until) if message.HasField("until") else None,
    )


def pruned_to_proto(pruned: PrunedImages) -> image_pb2.PruneImagesResponse:
    return image_pb2.PruneImagesResponse(
        untagged=pruned.untagged, deleted=pruned.deleted, space_reclaimed=pruned.space_reclaimed
    )
