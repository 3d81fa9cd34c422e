"""One question to all nodes. Among several, one that does not answer is left out, and delays nobody for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from common.errors import DeadlineExceeded, SlipwayError, Unavailable

T = TypeVar("T")

_ANSWER_TIME = 10.0  # seconds
_AWAY_TIME = 1.0  # seconds for one that is on record as away


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[T]):
    """`answers` by node. `warnings`: a sentence for each node that gave none."""

    answers: Mapping[str, T]
    warnings: Sequence[str]


async def ask_nodes(engine: Engine, ask: Callable[[Node, Deadline], Awaitable[T]], deadline: Deadline) -> Answered[T]:
    """Raises what the only node raises, or what the first does when none answers."""
    if (sole := engine.nodes.sole()) is not None:
        return Answered(answers={sole.name: await ask(sole, deadline)}, warnings=())
    nodes = engine.nodes.all()
    outcomes = await asyncio.gather(*(_ask(node, ask, deadline) for node in nodes))
    answers: dict[str, T] = {}
    failures: list[SlipwayError] = []
    for node, outcome in zip(nodes, outcomes, strict=True):
        if isinstance(outcome, SlipwayError):
            failures.append(outcome)
        else:
            answers[node.name] = outcome
    if failures and not answers:
        raise failures[0]
    return Answered(answers=answers, warnings=[error.message for error in failures])


async def _ask(node: Node, ask: Callable[[Node, Deadline], Awaitable[T]], deadline: Deadline) -> T | SlipwayError:
    limit = deadline.at_most(_ANSWER_TIME if node.follower.connected or not node.follower.failure else _AWAY_TIME)
    try:
        return await ask(node, limit)
    except DeadlineExceeded as error:
        return Unavailable(f"node {node.name!r} did not answer in time ({error.message})")
    except Unavailable as error:
        return error
