"""A create that is repeated under the same request id answers with the same container."""

from __future__ import annotations

from contextlib import aclosing

from api_service.operations.engine import Engine
from api_service.records.container import Phase


async def replayed(engine: Engine, request_id: str) -> str | None:
    """The id of the container that was created under it; None when there is none and one may be created.

    Waits for a create under way; one whose process died is undone by `node_sweep`.
    """
    container_id = await engine.containers.id_of_request(request_id)
    if container_id is None:
        return None
    async with aclosing(engine.containers.watch(container_id)) as records:
        async for record in records:
            if record is None:
                return None
            if record.phase is not Phase.CREATING:
                return container_id
    return None
