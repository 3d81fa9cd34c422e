"""Create a container: all rules at once, the image, the name, the record, the node. Starts nothing.

Until the record is `ready` the container does not exist for anybody else, and whatever ends the create before that, an
error, the client or the deadline, leaves nothing behind: no name, no request id, no record, nothing on the node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from api_service.deadline import DEFAULT_DEADLINE, UPLOAD_DEADLINE, Deadline
from api_service.executor_client.node import NodeFacts
from api_service.nodes.registry import Node
from api_service.operations.container_draft import CreateRequest, draft_container
from api_service.operations.container_image import is_lost, lost_again, obtain_image, validate_pull
from api_service.operations.container_join import resolve_joined
from api_service.operations.container_placement import NodeTakenError, place_container, sole_node
from api_service.operations.container_replay import replayed
from api_service.operations.container_reserve import reserve_container
from api_service.operations.container_spec import container_spec
from api_service.operations.container_undo import undo_create
from api_service.operations.dependency_resolve import resolve_dependencies
from api_service.operations.engine import Engine
from api_service.operations.host_facts import host_facts
from api_service.operations.jobs import whole
from api_service.operations.mount_plan import MountPlan
from api_service.operations.network_attach import network_warnings, resolve_networks
from api_service.operations.network_spread import spread_to
from api_service.operations.volume_create import ensure_on_node
from api_service.placement.place import Demand
from api_service.records.asked import as_asked
from api_service.records.container import ContainerRecord, Phase
from api_service.records.container_repository import Changed
from api_service.records.event_shapes import container_event
from api_service.records.image import ImageRecord
from api_service.validation.container_create import Creation, normalise, validate_create, warnings
from api_service.validation.host_facts import any_host
from api_service.validation.remapped_users import is_remapped
from common.errors import Aborted, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable

_USERS_CHANGED = "USERS_CHANGED"  # the executor's reason: its settings are others since it was asked
_IMAGE_ATTEMPTS = 3  # each failure means that somebody removed the image
_PLACEMENTS = 8  # each failure means that others took the node's room


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """`warnings`: a sentence each."""

    id: str
    warnings: Sequence[str]


class _ImageLostError(Exception):
    """It was removed between the decision for it and the create on the node."""


async def create_container(engine: Engine, request: CreateRequest, *, deadline: Deadline | None) -> Created:
    """Raises InvalidArgument with every violation, NotFound for the image, AlreadyExists for the name, Unavailable, and
    what placement and the pull of an image raise. `deadline` None: the pull may take its time, and the rest has the
    usual."""
    if (node := sole_node(engine, request.host_config)) is not None:
        with suppress(NodeTakenError):  # it is being removed
            return await _create_on(engine, request, node, Demand(), deadline=deadline)
    _refuse_wrong(request)
    for _ in range(_PLACEMENTS):
        if request.request_id and (known := await replayed(engine, request.request_id)) is not None:
            return Created(id=known, warnings=())
        node, demand = await place_container(
            engine, request.image, request.host_config, request.networking_config, name=request.name
        )
        try:
            return await _create_on(engine, request, node, demand, deadline=deadline)
        except NodeTakenError:
            continue
    raise Aborted("the container: others take the room of every node it is placed on; repeat the request")


def _refuse_wrong(request: CreateRequest) -> None:
    """What would be wrong on every node. Raises InvalidArgument."""
    asked = (request.config, request.host_config, request.networking_config)
    violations = [
        *request.violations,
        *validate_create(*asked, any_host(request.host_config.runtime)),
        *validate_pull(request.image),
    ]
    if violations:
        raise InvalidArgument(violations=violations)


async def _create_on(
    engine: Engine, request: CreateRequest, node: Node, demand: Demand, *, deadline: Deadline | None
) -> Created:
    """Raises NodeTakenError when the node cannot take it any more."""
    facts = await _facts(node, request, deadline or Deadline.after(DEFAULT_DEADLINE))
    host = host_facts(facts)
    asked = (request.config, request.host_config, request.networking_config, host)
    violations = [*request.violations, *validate_create(*asked), *validate_pull(request.image)]
    if violations:
        raise InvalidArgument(violations=violations)
    creation = normalise(request.name, *asked)
    lost: ImageRecord | None = None
    for _ in range(_IMAGE_ATTEMPTS):
        async with (deadline or Deadline.after(DEFAULT_DEADLINE)).enforced("create the container"):
            if request.request_id and (known := await replayed(engine, request.request_id)) is not None:
                return Created(id=known, warnings=warnings(creation, host))
        pull_deadline = deadline or Deadline.after(UPLOAD_DEADLINE)
        image = await obtain_image(engine, request.image, node, lost=lost, deadline=pull_deadline)
        limit = deadline or Deadline.after(DEFAULT_DEADLINE)
        try:
            async with limit.enforced("create the container"):
                created = await _create(engine, request, creation, image, facts, node, demand, limit)
        except _ImageLostError:
            lost = image
            continue
        asked_for = creation.host_config
        told = await network_warnings(
            engine,
            asked_for.network_mode,
            creation.networking_config,
            publishes=bool(asked_for.port_bindings) or asked_for.publish_all_ports,
        )
        return Created(id=created, warnings=[*warnings(creation, host), *told])
    raise lost_again(request.image)


async def _create(
    engine: Engine,
    request: CreateRequest,
    creation: Creation,
    image: ImageRecord,
    facts: NodeFacts,
    node: Node,
    demand: Demand,
    deadline: Deadline,
) -> str:
    """The container's id, also when another create holds the request id. Raises _ImageLostError."""
    host = host_facts(facts)
    while True:
        depends_on = await resolve_dependencies(engine, creation.host_config.depends_on, node=node.name)
        joining = await resolve_joined(engine, creation.host_config, host, name=creation.name)
        mode, networking = await resolve_networks(
            engine, joining.network_mode, creation.networking_config, node=node.name
        )
        resolved = dataclasses.replace(
            creation, host_config=dataclasses.replace(joining, network_mode=mode), networking_config=networking
        )
        draft, plan = await draft_container(engine, request, resolved, image, facts, node)
        draft = dataclasses.replace(
            draft,
            host_config=dataclasses.replace(draft.host_config, depends_on=depends_on),
            booked=demand.booking,
        )
        remapped = is_remapped(draft.host_config, host)
        if await _lay_out(engine, draft, plan, node, name=creation.name, remapped=remapped, deadline=deadline):
            return draft.id
        if (known := await replayed(engine, request.request_id)) is not None:
            return known


async def _facts(node: Node, request: CreateRequest, deadline: Deadline) -> NodeFacts:
    """Raises Unavailable when the node never answered, or InvalidArgument for what would be wrong on every node."""
    try:
        return await node.facts(deadline)
    except (Unavailable, DeadlineExceeded) as error:
        asked = (request.config, request.host_config, request.networking_config)
        violations = [*request.violations, *validate_create(*asked, any_host(request.host_config.runtime))]
        if violations:
            raise InvalidArgument(violations=violations) from error
        raise


async def _lay_out(
    engine: Engine,
    draft: ContainerRecord,
    plan: MountPlan,
    node: Node,
    *,
    name: str,
    remapped: bool,
    deadline: Deadline,
) -> bool:
    """False when another create holds the request id. Raises _ImageLostError."""
    async with AsyncExitStack() as undo:
        engine.creating.add(draft.id)
        undo.callback(engine.creating.discard, draft.id)
        undo.push_async_callback(
            lambda: engine.jobs.finish(undo_create(engine, draft), name=f"undo create {draft.id[:12]}")
        )
        record = await whole(reserve_container(engine, draft, plan, name=name))
        if record is None:
            return False
        for volume in plan.volumes:
            await ensure_on_node(engine, volume.name, deadline)
        attached = [endpoint.network_id for endpoint in record.networking_config.endpoints.values()]
        await spread_to(engine, attached, node, deadline)
        try:
            await node.executor.containers.create(container_spec(record, remapped=remapped), deadline=deadline)
        except InvalidArgument as error:
            raise as_asked(error, record) from error
        except (FailedPrecondition, NotFound) as error:
            if error.reason == _USERS_CHANGED:
                node.forget_facts()
            if is_lost(error, record.image_id):
                raise _ImageLostError from error
            raise
        await whole(_make_ready(engine, record, undo))
    engine.creating.discard(draft.id)
    return True


async def _make_ready(engine: Engine, record: ContainerRecord, undo: AsyncExitStack) -> None:
    def change(found: ContainerRecord) -> Changed:
        ready = dataclasses.replace(found, phase=Phase.READY)
        return Changed(record=ready, events=[container_event(ready, "create", engine.clock())])

    if await engine.containers.update(record.id, change) is None:
        raise Aborted(f"container {record.name!r}: removed while it was being created; create it again")
    undo.pop_all()
