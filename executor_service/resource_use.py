"""Keeps what containers are made of, images, volumes and networks, from being removed while one is being made of it,
and the other way round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from common.errors import FailedPrecondition
from executor_service.container import ContainerSpec
from executor_service.mounts import MountType
from executor_service.records import ContainerRecords


def images_of(spec: ContainerSpec) -> set[str]:
    """Ids of the images that the container needs: its own, and those that it mounts."""
    return {spec.image_id, *_sources(spec, MountType.IMAGE)} - {""}


def volumes_of(spec: ContainerSpec) -> set[str]:
    return set(_sources(spec, MountType.VOLUME))


def networks_of(spec: ContainerSpec) -> set[str]:
    return {endpoint.network_id for endpoint in spec.endpoints}


class ResourceUse:
    """Of one kind of thing, `image`, `volume` or `network`; `names` tells those of a container. Belongs to one event
    loop."""

    def __init__(self, records: ContainerRecords, kind: str, names: Callable[[ContainerSpec], set[str]]) -> None:
        self._records = records
        self._kind = kind
        self._names = names
        self._wanted: Counter[str] = Counter()
        self._removing: Counter[str] = Counter()

    @contextmanager
    def wanted(self, names: Iterable[str]) -> Iterator[None]:
        """While a container's record is not written yet. Raises FailedPrecondition when one of them is being
        removed."""
        with ExitStack() as counted:
            for name in names:
                if self._removing[name]:
                    raise self._refused(name, "is being removed; repeat the request when it is gone", "BEING_REMOVED")
                counted.enter_context(_counted(self._wanted, name))
            yield

    @contextmanager
    def removal(self, name: str) -> Iterator[None]:
        """Raises FailedPrecondition when a container of this node uses it."""
        if self._wanted[name]:
            raise self._refused(name, "is used by a container that is being created", "IN_USE")
        users = [record.id for record in self._records.all() if record.spec and name in self._names(record.spec)]
        if users:
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            raise self._refused(name, f"is used by container {users[0]!r}{more}; remove that first", "IN_USE")
        with _counted(self._removing, name):
            yield

    def _refused(self, name: str, why: str, reason: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"{self._kind} {name!r} {why}",
            resource_type=self._kind,
            resource_name=name,
            reason=f"{self._kind.upper()}_{reason}",
        )


def _sources(spec: ContainerSpec, kind: MountType) -> Iterator[str]:
    return (mount.source for mount in spec.mounts if mount.type is kind)


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
