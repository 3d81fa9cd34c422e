"""Make an image of what a container is now."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from api_service.deadline import Deadline
from api_service.executor_client.images import CommitSpec
from api_service.operations.container_state import refuse_when_going
from api_service.operations.engine import Engine
from api_service.operations.image_arrival import refuse_when_gone
from api_service.operations.image_name import image_name
from api_service.operations.image_record import encode_image_config, image_record
from api_service.operations.image_rules import check_image_config
from api_service.records.config import ContainerConfig, ImageConfig
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import container_event
from api_service.records.image import ImageRecord
from api_service.validation.environment import merge_environment
from api_service.validation.ports import normalise_exposed_ports
from api_service.validation.volumes import normalise_volume_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """`reference` may be empty: the image then has no name. `config` is what the container's own is changed by."""

    container: str
    reference: str = ""
    config: ImageConfig = field(default_factory=ImageConfig)
    author: str = ""
    comment: str = ""
    pause: bool = True


async def commit_container(engine: Engine, request: CommitRequest, *, deadline: Deadline) -> ImageRecord:
    """Raises InvalidArgument, NotFound, FailedPrecondition, ResourceExhausted, Unavailable."""
    names = (image_name(request.reference, field="reference"),) if request.reference else ()
    record = await engine.containers.find(request.container)
    refuse_when_going(record, "commit")
    check_image_config(engine, request.config, field="config")
    config = image_config_of(record.config, request.config)
    check_image_config(engine, config, field="config")
    spec = CommitSpec(
        container_id=record.id,
        config=encode_image_config(config),
        author=request.author,
        comment=request.comment,
        pause=request.pause,
    )
    return await engine.jobs.finish(_commit(engine, record, spec, names, deadline), name=f"commit {record.name}")


def image_config_of(own: ContainerConfig, asked: ImageConfig) -> ImageConfig:
    """What is asked for wins field by field; environment, labels, exposed ports and volumes are united by key."""
    return ImageConfig(
        user=asked.user or own.user,
        env=merge_environment(asked.env, own.env),
        entrypoint=asked.entrypoint or own.entrypoint or (),
        cmd=asked.cmd or own.cmd,
        working_dir=asked.working_dir or own.working_dir,
        labels={**own.labels, **asked.labels},
        exposed_ports=normalise_exposed_ports((*asked.exposed_ports, *own.exposed_ports)),
        stop_signal=asked.stop_signal or own.stop_signal,
        volumes=normalise_volume_paths((*asked.volumes, *own.volumes)),
        healthcheck=asked.healthcheck or own.healthcheck,
        shell=asked.shell or own.shell,
    )


async def _commit(
    engine: Engine, container: ContainerRecord, spec: CommitSpec, names: tuple[str, ...], deadline: Deadline
) -> ImageRecord:
    node = engine.nodes.get(container.node)
    stored = await node.executor.images.commit(spec, deadline=deadline)
    image = dataclasses.replace(image_record(stored, node=node.name), names=names)
    async with engine.image_changes:
        await refuse_when_gone(node, image.id)
        event = container_event(container, "commit", engine.clock(), imageID=image.id, comment=spec.comment)
        return await engine.images.add(image, [event])
