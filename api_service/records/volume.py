"""The record of a volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from api_service.records.mount import DEFAULT_VOLUME_DRIVER


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """`options` are the driver's. `created_at`: nanoseconds since the epoch. `mountpoint`: where it is on the node,
    empty until the node was asked. `anonymous`: made without being named.

    `made_for`: the container in whose create it was made, as long as nobody else has asked for it: a create that is
    taken back takes it along. `removing`: it is going, and cannot be used any more."""

    name: str
    created_at: int
    node: str
    driver: str = DEFAULT_VOLUME_DRIVER
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    mountpoint: str = ""
    anonymous: bool = False
    made_for: str = ""
    removing: bool = False
