"""Tells one node of the others that share its overlay networks: which slices they have, and who runs there.

What is told is always the whole, and what changes while a message is under way goes with the next one: a node that is
slow is told less often, never too much, and one that was away is told everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.networks import ContainerElsewhere, Underlay
from api_service.nodes.registry import Node
from api_service.overlays.slices import underlay_of
from api_service.overlays.view import Interest, OverlayView
from common.errors import DeadlineExceeded, SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

_CALL_TIME = 10.0  # seconds
_FIRST_RETRY, _LONGEST_RETRY = 0.5, 15.0  # seconds


@dataclass(slots=True)
class _Told:
    """Of one network; None: the node may know anything."""

    underlay: Underlay | None = None
    containers: list[ContainerElsewhere] | None = None


class OverlayTeller:
    """Run `tell_forever` as a task, for one node in one process at a time."""

    def __init__(self, node: Node, view: OverlayView) -> None:
        self._node = node
        self._view = view
        self._told: dict[str, _Told] = {}
        self._interest: Interest | None = None
        self._back = asyncio.Event()

    def repeat(self) -> None:
        """It was away, and may have forgotten everything."""
        self._told.clear()
        if self._interest is not None:
            self._interest.add(*self._view.networks())
        self._back.set()

    async def tell_forever(self) -> None:
        with self._view.interest() as interest:
            self._interest = interest
            self._told.clear()
            refused: set[str] = set()
            delay, again_at = _FIRST_RETRY, 0.0
            while True:
                asked: set[str] = set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(again_at if refused else None):
                        asked = await interest.taken()
                self._back.clear()
                # However much else changes meanwhile.
                again = time.monotonic() >= again_at
                asked |= refused if again else set()
                untold, failed = await self._tell_each(sorted(asked))
                refused = (refused - asked) | failed
                if untold:
                    interest.add(*untold)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._back.wait(), delay)
                if not untold and not refused:
                    delay, again_at = _FIRST_RETRY, 0.0
                elif again:
                    again_at = time.monotonic() + delay
                    delay = min(delay * 2, _LONGEST_RETRY)

    async def _tell_each(self, network_ids: Sequence[str]) -> tuple[Sequence[str], set[str]]:
        """Those that are left when the node does not answer, and those it refuses to hear of, which keep no other from
        being told."""
        refused: set[str] = set()
        for number, network_id in enumerate(network_ids):
            try:
                await self._tell(network_id)
            except SlipwayError as error:
                why = {"node": self._node.name, "network": network_id, "error": error.message}
                _log.warning("overlay network not told", **why)
                if isinstance(error, Unavailable | DeadlineExceeded):
                    return network_ids[number:], refused
                refused.add(network_id)
        return (), refused

    async def _tell(self, network_id: str) -> None:
        network = self._view.network(network_id)
        overlay = network.overlay if network is not None else None
        own = overlay.slices.get(self._node.name) if overlay is not None else None
        if overlay is None or own is None or not own.made:
            self._told.pop(network_id, None)
            return  # there is nobody there to be told
        told = self._told.setdefault(network_id, _Told())
        underlay = underlay_of(overlay, self._node.name)
        if told.underlay != underlay:
            await self._node.executor.networks.set_overlay_peers(
                network_id, underlay, deadline=Deadline.after(_CALL_TIME)
            )
            told.underlay = underlay
        await self._tell_names(network_id, told)

    async def _tell_names(self, network_id: str, told: _Told) -> None:
        version, containers = self._view.revision, self._view.elsewhere(network_id, self._node.name)
        if told.containers == containers:
            return
        held = await self._send_names(network_id, containers, version, renumbered=False)
        if held > version and await self._view.from_elsewhere(held):
            # From a store that was at another number: records were moved from one to the other.
            await self._send_names(network_id, containers, version, renumbered=True)
        elif held > version:
            return  # somebody knew more than is known here yet; that comes
        told.containers = containers

    async def _send_names(
        self, network_id: str, containers: list[ContainerElsewhere], version: int, *, renumbered: bool
    ) -> int:
        return await self._node.executor.networks.set_names_elsewhere(
            network_id,
            containers,
            version=version,
            renumbered=renumbered,
            deadline=Deadline.after(_CALL_TIME),
        )
