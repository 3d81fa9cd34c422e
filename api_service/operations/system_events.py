"""The stream of events, from a cursor, from a time, or from now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from api_service.operations.engine import Engine
from api_service.operations.label_filter import has_labels
from api_service.records.event import Event, EventCursor, EventType
from api_service.records.event_log import BEGINNING, parse_cursor

Item = tuple[EventCursor, Event]

_SECOND = 1_000_000_000  # nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """`cursor` wins over `since`; times in nanoseconds since the epoch. Values of one field are alternatives, fields
    restrict each other; `labels` all hold. `containers`: ids, id prefixes or names."""

    cursor: str = ""
    since: int | None = None
    until: int | None = None
    types: frozenset[str] = field(default_factory=frozenset)
    actions: frozenset[str] = field(default_factory=frozenset)
    containers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


async def stream_events(
    engine: Engine, query: EventQuery, *, on_following: Callable[[], Awaitable[None]]
) -> AsyncGenerator[Item]:
    """`on_following` is awaited once the beginning is fixed: whatever happens after it is in the stream.

    Raises InvalidArgument for what is no cursor, OutOfRange (`CURSOR_GONE`).
    """
    begin = parse_cursor(query.cursor) if query.cursor else await engine.events.end()
    await on_following()
    if query.since is not None and not query.cursor:
        source, begin, since = engine.events.since(query.since), BEGINNING, query.since
    else:
        source, since = engine.events.after(begin), 0
    if query.until is not None:
        source = _until(engine, source, begin, since=since, until=query.until)
    async with aclosing(source) as items:
        async for place, event in items:
            if (query.until is None or event.time <= query.until) and _matches(event, query):
                yield place, event


async def _until(
    engine: Engine, source: AsyncGenerator[Item], begin: EventCursor, *, since: int, until: int
) -> AsyncGenerator[Item]:
    """The source until that time, and then what had happened by then and was not read yet."""
    last = begin
    async with aclosing(source) as items:
        while True:
            waiting = asyncio.ensure_future(anext(items))
            try:
                await asyncio.wait([waiting], timeout=max(until - engine.clock(), 0) / _SECOND)
            finally:
                if not waiting.done():
                    waiting.cancel()
                    await asyncio.wait([waiting])
            if waiting.cancelled():
                break
            last, event = waiting.result()
            yield last, event
    async for place, event in engine.events.kept(after=last, since=since):
        yield place, event


def _matches(event: Event, query: EventQuery) -> bool:
    if query.types and event.type.value not in query.types:
        return False
    if query.actions and event.action not in query.actions:
        return False
    if query.containers and not any(_is_about(event, container) for container in query.containers):
        return False
    return has_labels(event.labels, query.labels)


def _is_about(event: Event, container: str) -> bool:
    """Network and volume events tell which container they are about."""
    match event.type:
        case EventType.CONTAINER:
            return event.actor_id.startswith(container) or event.attributes.get("name") == container.removeprefix("/")
        case EventType.NETWORK | EventType.VOLUME:
            return event.attributes.get("container", "").startswith(container)
        case EventType.IMAGE | EventType.NODE:
            return False
