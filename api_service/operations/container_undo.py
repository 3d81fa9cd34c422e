"""Take back a create that was not finished: what it left on the node, then its record, name and request id."""

from __future__ import annotations

import structlog

from api_service.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.volume_use import remove_made
from api_service.records.container import ContainerRecord, Phase
from common.errors import SlipwayError

_log = structlog.get_logger(__name__)

_UNDO_TIME = 15.0  # seconds; its own, the create's deadline may be what ended it


async def undo_create(engine: Engine, draft: ContainerRecord) -> None:
    """Nothing there: nothing happens. A node that does not answer does not keep the name from others: what is left
    there is removed when it answers again (`node_sweep`)."""
    stored = await engine.containers.get(draft.id)
    if stored is None or stored.record.phase is not Phase.CREATING:
        return
    try:
        await engine.nodes.get(stored.record.node).executor.containers.remove(
            draft.id, deadline=Deadline.after(_UNDO_TIME)
        )
    except SlipwayError as error:
        _log.warning("unfinished create left on its node", container=draft.id, error=error.message)
    await remove_made(engine, stored.record, Deadline.after(_UNDO_TIME))
    await engine.containers.delete(draft.id)
