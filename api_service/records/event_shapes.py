"""The events of containers, networks and images, as Docker shapes them: who, its labels, and what the action adds."""

from __future__ import annotations

from api_service.records.container import ContainerRecord
from api_service.records.event import Event, EventType
from api_service.records.image import ImageRecord


def container_event(record: ContainerRecord, action: str, time: int, **more: str) -> Event:
    """Attributes: the labels, `image`, `name`, and `more`, which wins over a label of the same name."""
    return Event(
        type=EventType.CONTAINER,
        action=action,
        actor_id=record.id,
        time=time,
        details={"image": record.config.image, "name": record.name, **more},
        labels=dict(record.config.labels),
    )


def network_event(record: ContainerRecord, action: str, time: int, *, network: str) -> Event:
    return Event(
        type=EventType.NETWORK,
        action=action,
        actor_id=network,
        time=time,
        details={"container": record.id, "name": network, "type": network},
    )


def image_event(image: ImageRecord, action: str, time: int, *, name: str = "") -> Event:
    """`name` is the reference the action was about; the image's first name, or its id, when it was about none."""
    shown = name or (image.names[0] if image.names else image.id)
    return Event(
        type=EventType.IMAGE,
        action=action,
        actor_id=image.id,
        time=time,
        details={"name": shown},
        labels=dict(image.config.labels),
    )
