"""The events of containers, networks, images, nodes and volumes, as Docker shapes them: who, its labels, and what the
action adds."""

from __future__ import annotations

from api_service.records.container import ContainerRecord
from api_service.records.event import Event, EventType
from api_service.records.image import ImageRecord
from api_service.records.mount import DEFAULT_VOLUME_DRIVER, MountPoint
from api_service.records.network import NetworkRecord
from api_service.records.node import NodeRecord
from api_service.records.volume import VolumeRecord


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


def network_life_event(network: NetworkRecord, action: str, time: int) -> Event:
    """Of the network itself: it was made or deleted."""
    return Event(
        type=EventType.NETWORK,
        action=action,
        actor_id=network.id,
        time=time,
        details={"name": network.name, "type": network.driver},
        labels=dict(network.labels),
    )


def network_event(record: ContainerRecord, action: str, time: int, *, network_id: str, name: str, driver: str) -> Event:
    """Of a container that was attached or detached."""
    return Event(
        type=EventType.NETWORK,
        action=action,
        actor_id=network_id,
        time=time,
        details={"container": record.id, "name": name, "type": driver},
    )


def volume_event(volume: VolumeRecord, action: str, time: int) -> Event:
    """Of the volume itself: it was made or deleted."""
    return Event(
        type=EventType.VOLUME,
        action=action,
        actor_id=volume.name,
        time=time,
        details={"driver": volume.driver},
        labels=dict(volume.labels),
    )


def mount_event(record: ContainerRecord, mount: MountPoint, action: str, time: int) -> Event:
    """Of a volume in a container that began or ended to run."""
    more = {} if action == "unmount" else {"destination": mount.destination, "propagation": mount.propagation}
    if action == "mount":
        more["read/write"] = "false" if mount.read_only else "true"
    return Event(
        type=EventType.VOLUME,
        action=action,
        actor_id=mount.source,
        time=time,
        details={"driver": DEFAULT_VOLUME_DRIVER, "container": record.id, **more},
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


def node_event(node: NodeRecord, action: str, time: int, **more: str) -> Event:
    """Swarm's words: `create`, `update` with `state.new` or `availability.new`, `remove`."""
    return Event(
        type=EventType.NODE,
        action=action,
        actor_id=node.name,
        time=time,
        details={"name": node.name, **more},
        labels=dict(node.labels),
    )
