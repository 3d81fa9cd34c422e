"""What was begun and will not be finished: by this replica, or by one that is gone."""

from __future__ import annotations

from collections.abc import Set

from api_service.operations.engine import Engine


async def alive(engine: Engine) -> Set[str]:
    """The replicas that may finish what they began. Asked for after the records that are judged by it: a replica is
    known before it writes its first. Raises Unavailable."""
    return await engine.claims.replicas()


def is_abandoned(engine: Engine, replica: str, alive: Set[str], *, under_way: bool) -> bool:
    """`replica`: who began it; `under_way`: here, if that was this one."""
    return not under_way if replica == engine.claims.replica else replica not in alive
