"""Something that happened to somebody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class EventType(StrEnum):
    CONTAINER = "container"
    IMAGE = "image"
    NETWORK = "network"
    NODE = "node"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`time` is in nanoseconds since the epoch. `labels` are the actor's, `details` what belongs to the action.
    A filter by label looks at the labels alone."""

    type: EventType
    action: str
    actor_id: str
    time: int
    details: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, str]:
        """Both; a detail wins over a label of the same name."""
        return {**self.labels, **self.details}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class EventCursor:
    """Where an event stands: the revision of the commit that wrote it, and its index among that commit's events."""

    revision: int
    index: int

    def __str__(self) -> str:
        return f"{self.revision}.{self.index}"
