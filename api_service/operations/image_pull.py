"""Take an image from a registry."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from api_service.deadline import Deadline
from api_service.executor_client.images import LayerProgress, PulledImage, PullSpec, RegistryCredentials
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.image_arrival import refuse_when_gone
from api_service.operations.image_name import refuse_more_digests, refuse_more_names
from api_service.operations.image_record import image_record
from api_service.operations.node_choice import image_nodes
from api_service.operations.platform import parse_pull_platform
from api_service.operations.pulls_together import PulledRecord, side_by_side
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord
from api_service.validation.references import ImageReference, InvalidReference, normalise_reference
from common.errors import InvalidArgument, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """`platform` and `node` may be empty."""

    reference: str
    platform: str = ""
    credentials: RegistryCredentials = field(default_factory=RegistryCredentials)
    node: str = ""


async def pull_image(
    engine: Engine, request: PullRequest, *, deadline: Deadline
) -> AsyncGenerator[LayerProgress | PulledRecord]:
    """The layers' progress, then the image, which has the reference as a name unless that has a digest, and is found
    by its digests. Without a `node` on every node that gets containers, side by side: those that have it keep it when
    another one fails. Raises what the node raises."""
    reference = _reference(request.reference)
    nodes = image_nodes(engine, request.node)
    spec = PullSpec(
        endpoints=await engine.registries.endpoints_of(reference, request.credentials),
        reference=reference.digest or reference.tag,
        platform=parse_pull_platform(request.platform),
        name="" if reference.digest else reference.familiar,
    )
    pulls = {node.name: _pull(engine, node, spec, reference, deadline=deadline) for node in nodes}
    async with aclosing(side_by_side(pulls) if len(pulls) > 1 else pulls[nodes[0].name]) as answers:
        async for answer in answers:
            yield answer


async def _pull(
    engine: Engine, node: Node, spec: PullSpec, reference: ImageReference, *, deadline: Deadline
) -> AsyncGenerator[LayerProgress | PulledRecord]:
    async with aclosing(node.executor.images.pull(spec, deadline=deadline)) as answers:
        async for answer in answers:
            if isinstance(answer, PulledImage):
                # The node has it: whether or not the client is still there, it is recorded.
                recording = _record(engine, node, answer, reference)
                record = await engine.jobs.finish(recording, name=f"record {answer.image.id}")
                yield PulledRecord(image=record, digest=answer.digest)
            else:
                yield answer


def _reference(text: str) -> ImageReference:
    try:
        return normalise_reference(text)
    except InvalidReference as error:
        raise InvalidArgument(violations=[Violation(field="reference", description=str(error))]) from error


async def _record(engine: Engine, node: Node, pulled: PulledImage, reference: ImageReference) -> ImageRecord:
    """It is found by its manifest's digest, that of the index, if any, and the one that was asked for."""
    found = image_record(pulled.image, node=node.name)
    asked = [
        dataclasses.replace(reference, tag="", digest=each).familiar
        for each in (pulled.index_digest, pulled.digest, reference.digest)
        if each
    ]
    record = dataclasses.replace(found, digests=tuple(dict.fromkeys(asked)))
    async with engine.image_changes:
        await refuse_when_gone(node, record.id)
        held = await engine.images.get(record.id)
        refuse_more_names(record.id, len({*record.names, *(held.names if held else ())}))
        refuse_more_digests(record.id, len({*record.digests, *(held.digests if held else ())}))
        event = image_event(record, "pull", engine.clock(), name=reference.familiar)
        return await engine.images.add(record, [event])
