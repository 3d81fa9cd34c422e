"""What has to be put right whenever a node answers again: removals that were cut off, creates that nobody finishes,
what a lost undo left on the node, containers that should have removed themselves, execs whose end nobody told, the
node's images, networks and volumes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from functools import partial

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.images import StoredImage
from api_service.executor_client.snapshot import NodeSnapshot, SnapshotPhase
from api_service.nodes.registry import Node
from api_service.operations.abandoned import alive, is_abandoned
from api_service.operations.container_remove import join_removal, remove_ended
from api_service.operations.container_undo import undo_create
from api_service.operations.container_update import settle_update
from api_service.operations.engine import Engine
from api_service.operations.exec_settle import settle_execs
from api_service.operations.image_record import image_record
from api_service.operations.image_remove import delete_condemned
from api_service.operations.network_connect import tell_names
from api_service.operations.network_sweep import sweep_networks
from api_service.operations.node_tending import revive
from api_service.operations.volume_sweep import sweep_volumes
from api_service.records.container import ContainerRecord, Phase
from api_service.records.event_shapes import image_event
from common.errors import InvalidArgument

_log = structlog.get_logger(__name__)

_CALL_TIME = 60.0  # seconds


async def sweep_node(engine: Engine, node: Node) -> None:
    """Each part on its own: one that fails is logged and leaves the others alone."""
    jobs = engine.jobs
    snapshot = await node.executor.snapshot(deadline=Deadline.after(_CALL_TIME))
    fresh = await engine.catch_up()  # another replica may have recorded what the node has
    records = await engine.containers.on_node(node.name)
    replicas = await alive(engine)
    for record in records:
        if (left := _left_to_do(engine, record, replicas)) is not None:
            what, work = left
            jobs.background(node.put_right(work), name=f"{what} {record.id[:12]}")
        else:
            revive(engine, node, record)
    if fresh:
        jobs.background(_remove_leftovers(engine, node, snapshot), name=f"leftovers of {node.name}")
    jobs.background(settle_execs(engine, node), name=f"execs of {node.name}")
    jobs.background(sweep_networks(engine, node), name=f"networks of {node.name}")
    jobs.background(sweep_volumes(engine, node), name=f"volumes of {node.name}")
    jobs.background(_adopt_images(engine, node), name=f"images of {node.name}")


def _left_to_do(
    engine: Engine, record: ContainerRecord, replicas: Set[str]
) -> tuple[str, Callable[[], Awaitable[None]]] | None:
    """What was begun and not ended of a container, if anything was."""
    if record.phase is Phase.CREATING:
        if is_abandoned(engine, record.creator, replicas, under_way=record.id in engine.creating):
            return "undo create", partial(undo_create, engine, record)
        return None
    if record.phase is Phase.REMOVING:
        return "finish removal", partial(_finish_removal, engine, record.id)
    if record.update_unsettled:
        return "take back update", partial(settle_update, engine, record.id)
    if record.names_untold:
        return "names of", partial(_tell_names, engine, record.id)
    if _should_be_gone(record):
        return "auto-remove", partial(remove_ended, engine, record.id)
    return None


async def _tell_names(engine: Engine, container_id: str) -> None:
    await tell_names(engine, container_id, Deadline.after(_CALL_TIME))


async def sweep_after_departures(engine: Engine) -> None:
    """What a replica had begun when it died is put right by who follows the node it began it on."""
    while True:
        await engine.claims.departed()
        for node in engine.nodes.all():
            if node.follower.connected:
                engine.jobs.background(sweep_node(engine, node), name=f"sweep {node.name}")


def auto_remove(engine: Engine, record: ContainerRecord) -> None:
    """To be called when a container's process has ended, or could not be started."""
    if record.host_config.auto_remove:
        engine.jobs.background(remove_ended(engine, record.id), name=f"auto-remove {record.name}")


def _should_be_gone(record: ContainerRecord) -> bool:
    ended = not record.state.active and record.state.start_id != ""
    return record.phase is Phase.READY and record.host_config.auto_remove and ended


async def _finish_removal(engine: Engine, container_id: str) -> None:
    await join_removal(engine, container_id, force=True)


async def _remove_leftovers(engine: Engine, node: Node, snapshot: NodeSnapshot) -> None:
    """Only what was never started: a container that ran may be somebody's, and this service's records may be lost."""
    for container in snapshot.containers:
        if container.phase is not SnapshotPhase.CREATED or container.last is not None:
            continue
        # Records are written before the node is asked, so one that is absent now was undone.
        if not await engine.containers.exists(container.container_id):
            await node.executor.containers.remove(container.container_id, deadline=Deadline.after(_CALL_TIME))


async def _adopt(engine: Engine, node: Node, image: StoredImage) -> None:
    """One that this service cannot take keeps no other from being adopted."""
    try:
        record = image_record(image, node=node.name)
    except InvalidArgument as error:
        _log.error("image on a node not adopted", node=node.name, image=image.id, error=error.message)
        return
    await engine.images.adopt(record)


async def _adopt_images(engine: Engine, node: Node) -> None:
    """Images the node has and the records do not, and the other way round."""
    async with engine.image_changes:
        stored = await node.executor.images.list(deadline=Deadline.after(_CALL_TIME))
        known = {image.id: image for image in await engine.images.all()}
        for image in stored:
            record = known.get(image.id)
            if record is None:
                await _adopt(engine, node, image)
            elif node.name not in record.nodes:
                await engine.images.set_nodes(record.id, (*record.nodes, node.name))
        held = {image.id for image in stored}
        for record in known.values():
            if node.name not in record.nodes or record.id in held:
                continue
            if others := tuple(name for name in record.nodes if name != node.name):
                await engine.images.set_nodes(record.id, others)
            else:
                await engine.images.delete(record.id, [image_event(record, "delete", engine.clock())])
    for record in known.values():
        if record.condemned:
            await delete_condemned(engine, record.id)
