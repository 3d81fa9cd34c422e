"""Give an image to the registry that its name says."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from api_service.deadline import Deadline
from api_service.executor_client.images import LayerProgress, PushedImage, PushSpec, RegistryCredentials
from api_service.operations.engine import Engine
from api_service.operations.image_name import refuse_more_digests
from api_service.operations.image_resolve import no_such_image
from api_service.operations.node_choice import holder_of
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord
from api_service.validation.references import ImageReference, InvalidReference, normalise_reference
from common.errors import InvalidArgument, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    image: str
    credentials: RegistryCredentials = field(default_factory=RegistryCredentials)


async def push_image(
    engine: Engine, request: PushRequest, *, deadline: Deadline
) -> AsyncGenerator[LayerProgress | PushedImage]:
    """The layers' progress, then the image, which is found by the digest that it has there. Raises InvalidArgument for
    what is no name, NotFound, and what the node raises."""
    reference = _reference(request.image)
    record = await engine.images.named(reference.lookup)
    if record is None:
        raise no_such_image(request.image)
    refuse_more_digests(record.id, len(record.digests) + 1)
    node = holder_of(engine, record.nodes)
    endpoint = await engine.registries.registry_of(reference, request.credentials)
    spec = PushSpec(endpoint=endpoint, image_id=record.id, tag=reference.tag)
    async with aclosing(node.executor.images.push(spec, deadline=deadline)) as answers:
        async for answer in answers:
            if isinstance(answer, PushedImage):
                # The registry has it: whether or not the client is still there, that is recorded.
                await engine.jobs.finish(_record(engine, record, reference, answer.digest), name=f"record {record.id}")
            yield answer


def _reference(text: str) -> ImageReference:
    try:
        reference = normalise_reference(text)
    except InvalidReference as error:
        raise InvalidArgument(violations=[Violation(field="image", description=str(error))]) from error
    if reference.digest:
        why = "a digest cannot be chosen for what is pushed; give a name with a tag, TagImage makes one"
        raise InvalidArgument(violations=[Violation(field="image", description=why)])
    return reference


async def _record(engine: Engine, pushed: ImageRecord, reference: ImageReference, digest: str) -> None:
    name = dataclasses.replace(reference, tag="", digest=digest).familiar
    async with engine.image_changes:
        record = await engine.images.get(pushed.id)
        if record is not None and not record.condemned:
            event = image_event(record, "push", engine.clock(), name=reference.familiar)
            await engine.images.add(dataclasses.replace(record, names=(), digests=(name,)), [event])
