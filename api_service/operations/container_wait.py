"""Wait for a container to reach a condition, by the store's change feed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord, Phase


class WaitCondition(StrEnum):
    """A container whose restart is pending is not `not-running`: it goes on by itself. An end before a restart is a
    `next-exit`."""

    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """`exit_code` is None when it never ran or nobody saw the end; `error` then says why."""

    exit_code: int | None
    error: str


async def wait_container(
    engine: Engine, container: str, condition: WaitCondition, *, on_waiting: Callable[[], Awaitable[None]]
) -> Waited:
    """`on_waiting` is awaited once when what happens from now on counts. A container that is removed ends every wait.

    Raises NotFound.
    """
    first = last = await engine.containers.find(container)
    waiting = False
    async with aclosing(engine.containers.watch(first.id)) as records:
        async for record in records:
            if record is None:
                break
            last = record
            if not waiting:
                first, waiting = record, True
                await on_waiting()
            if _reached(condition, first, record):
                break
    return Waited(exit_code=last.state.exit_code, error=last.state.error)


def _reached(condition: WaitCondition, first: ContainerRecord, record: ContainerRecord) -> bool:
    match condition:
        case WaitCondition.NOT_RUNNING:
            return not record.state.active
        case WaitCondition.NEXT_EXIT:
            return record.state.finished_at != first.state.finished_at
        case WaitCondition.REMOVED:
            return record.phase is Phase.DEAD and record is not first
