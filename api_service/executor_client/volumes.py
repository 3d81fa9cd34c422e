"""The volumes of a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from api_service.deadline import Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVolume:
    """`mountpoint`: where its files are on the node. `options`: `type`, `o` and `device` of mount(8). `size` in bytes,
    0 unless asked for."""

    name: str
    mountpoint: str
    options: Mapping[str, str] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedVolume:
    """`made`: the call made it, as far as it is known; what was there before is somebody's."""

    volume: StoredVolume
    made: bool


class NodeVolumes(Protocol):
    """Every method raises as those of ExecutorClient do, and the errors named with it."""

    async def create(self, name: str, options: Mapping[str, str], *, deadline: Deadline) -> CreatedVolume:
        """Raises FailedPrecondition when it is there with other options."""

    async def remove(self, name: str, *, deadline: Deadline) -> int:
        """The bytes it held; nothing there: nothing happens. Raises FailedPrecondition while a container names it."""

    async def list(self, *, size: bool, deadline: Deadline) -> Sequence[StoredVolume]: ...
