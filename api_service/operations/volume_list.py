"""Volumes as they are shown: with the containers that use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api_service.operations.engine import Engine
from api_service.operations.label_filter import has_labels
from api_service.operations.volume_use import volumes_of
from api_service.records.volume import VolumeRecord
from api_service.records.volume_repository import no_such_volume


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFilter:
    """`names` are parts of names and alternatives, `labels` all hold. `used`: None for both."""

    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    used: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownVolume:
    """`used_by`: ids of containers."""

    volume: VolumeRecord
    used_by: Sequence[str]


async def list_volumes(engine: Engine, wanted: VolumeFilter) -> list[ShownVolume]:
    """By name."""
    users = await _users(engine)
    shown = [
        ShownVolume(volume=volume, used_by=users.get(volume.name, ()))
        for volume in await engine.volumes.all()
        if (not wanted.names or any(part in volume.name for part in wanted.names))
        and has_labels(volume.labels, wanted.labels)
    ]
    return [each for each in shown if wanted.used is None or bool(each.used_by) == wanted.used]


async def inspect_volume(engine: Engine, name: str) -> ShownVolume:
    """Raises NotFound."""
    stored = await engine.volumes.get(name)
    if stored is None:
        raise no_such_volume(name)
    return await shown_volume(engine, stored.record)


async def shown_volume(engine: Engine, volume: VolumeRecord) -> ShownVolume:
    return ShownVolume(volume=volume, used_by=(await _users(engine)).get(volume.name, ()))


async def _users(engine: Engine) -> dict[str, list[str]]:
    """Ids of containers by volume, oldest first."""
    users: dict[str, list[str]] = {}
    for record in sorted(await engine.containers.all(), key=lambda record: record.created_at):
        for name in volumes_of(record):
            users.setdefault(name, []).append(record.id)
    return users
