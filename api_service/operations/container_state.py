"""Which verbs a container's state allows, and the sentence for those it does not. Docker's table, with its answers of
today: `already` is no error, everything else that cannot be is FAILED_PRECONDITION."""

from __future__ import annotations

from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord, Status
from api_service.records.container_repository import no_such_container
from common.errors import FailedPrecondition, Unavailable

_GOING = {
    Status.REMOVING: "it is being removed",
    Status.DEAD: "its removal failed part-way; only removing it again is possible",
}


async def current(engine: Engine, container_id: str) -> ContainerRecord:
    """The record as it stands now. Raises NotFound when it was removed meanwhile."""
    stored = await engine.containers.get(container_id)
    if stored is None:
        raise no_such_container(container_id)
    return stored.record


def refuse_when_going(record: ContainerRecord, verb: str) -> None:
    """Raises FailedPrecondition for a container that is being removed or dead."""
    if (why := _GOING.get(record.status)) is not None:
        raise wrong_state(record, f"cannot {verb} it, {why}", reason="CONTAINER_GOING")


def refuse_when_moving(record: ContainerRecord, verb: str) -> None:
    """To be called with the container's lock held. Raises Unavailable for one that is on its way to where it runs again
    by itself: on its node there may be nothing of it yet."""
    if record.moving:
        why = f"cannot {verb} it while it moves to another node, where it is started again"
        raise Unavailable(
            f"container {record.name!r}: {why}; repeat the request when it runs, or stop or remove it",
            reason="CONTAINER_MOVING",
            metadata={"container": record.id},
            retry_after=1.0,
        )


def require_running(record: ContainerRecord, verb: str) -> None:
    """Raises FailedPrecondition, for one that is going and one that does not run."""
    refuse_when_going(record, verb)
    if not record.state.running:
        why = f"is not running (its state is {record.status.value}), so there is nothing to {verb}"
        raise wrong_state(record, why, reason="CONTAINER_NOT_RUNNING")


def wrong_state(record: ContainerRecord, why: str, *, reason: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"container {record.name!r}: {why}",
        resource_type="container",
        resource_name=record.id,
        reason=reason,
        metadata={"state": record.status.value},
    )
