"""Keeps the registry as the records say: a node that was added by any replica is dealt with by all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from api_service.nodes.registry import Node, NodeRegistry
from api_service.records.node import NodeRecord
from api_service.records.node_repository import NodeRepository
from common.errors import OutOfRange, SlipwayError

_log = structlog.get_logger(__name__)

_RETRY = 1.0  # seconds

OpenNode = Callable[[NodeRecord], AbstractAsyncContextManager[Node]]
"""A connection to the node, and the following of its journal, while the block runs."""


@dataclass(frozen=True, slots=True)
class _Opened:
    node: Node
    closing: AsyncExitStack


class NodeDirectory:
    """Use as an async context manager; run `follow_forever` as a task. `own` is the node of this service's settings: it
    is there whether or not it is on record, unless one was taken in under its name, which all services deal with. Those
    that other settings are about are not dealt with."""

    def __init__(
        self, nodes: NodeRepository, registry: NodeRegistry, open_node: OpenNode, *, own: NodeRecord | None
    ) -> None:
        self._nodes = nodes
        self._registry = registry
        self._open_node = open_node
        self._own = own
        self._opened: dict[str, _Opened] = {}

    async def __aenter__(self) -> Self:
        if self._own is not None:
            await self._take(self._own)
        for record in await self._nodes.all():
            await self._take(record)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(self._close(name) for name in list(self._opened)))

    async def follow_forever(self) -> None:
        while True:
            try:
                await self._follow()
            except OutOfRange:
                continue  # from the beginning, which leaves out nothing
            except SlipwayError as error:
                _log.warning("nodes on record not followed", error=error.message, retry_in=_RETRY)
            except Exception as error:
                # A bug must not end the following for good.
                _log.error("nodes on record not followed", exc_info=error)
            await asyncio.sleep(_RETRY)

    async def _follow(self) -> None:
        known = {record.name for record in await self._nodes.all()} | {self._own.name if self._own else ""}
        for name in self._opened.keys() - known:
            await self._close(name)
        async for name, record in self._nodes.watch():
            if record is not None:
                await self._take(record)
            elif self._own is None or name != self._own.name:
                await self._close(name)

    async def _take(self, record: NodeRecord) -> None:
        if self._own is not None and record.name == self._own.name and not record.configured:
            await self._give_up_own(record)
        is_own = self._own is not None and record.name == self._own.name
        if record.configured and not is_own:
            await self._close(record.name)
            return
        opened = self._opened.get(record.name)
        if opened is not None and (is_own or opened.node.record.created_at == record.created_at):
            opened.node.record = record
            return
        if opened is not None:  # removed and added again
            await self._close(record.name)
        closing = AsyncExitStack()
        try:
            node = await closing.enter_async_context(self._open_node(record))
        except SlipwayError as error:
            _log.error("node on record cannot be dealt with", node=record.name, error=error.message)
            return
        self._opened[record.name] = _Opened(node, closing)
        self._registry.add(node)

    async def _give_up_own(self, taken_in: NodeRecord) -> None:
        """What runs there is reached at the address on record, by all services; who is at ours may be another one."""
        self._own = None
        _log.error(
            "no node of our own: one was taken in under its name; give it another (--node), or have none "
            "(--executor none)",
            node=taken_in.name,
            address=taken_in.address,
        )
        await self._close(taken_in.name)

    async def _close(self, name: str) -> None:
        """One that was never dealt with, as it is of other settings, say: nothing happens."""
        if (opened := self._opened.pop(name, None)) is not None:
            self._registry.discard(name)
            await opened.closing.aclose()
