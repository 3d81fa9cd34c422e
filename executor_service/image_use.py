"""Keeps an image from being removed while a container is being made of it, and the other way round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import FailedPrecondition
from executor_service.records import ContainerRecords


class ImageUse:
    """Belongs to one event loop."""

    def __init__(self, records: ContainerRecords) -> None:
        self._records = records
        self._wanted: Counter[str] = Counter()
        self._removing: Counter[str] = Counter()

    @contextmanager
    def wanted(self, image_id: str) -> Iterator[None]:
        """While a container's record is not written yet. Raises FailedPrecondition when the image is being removed."""
        if self._removing[image_id]:
            raise self._refused(image_id, "is being removed")
        with _counted(self._wanted, image_id):
            yield

    @contextmanager
    def removal(self, image_id: str) -> Iterator[None]:
        """Raises FailedPrecondition when a container of this node uses the image."""
        if self._wanted[image_id]:
            raise self._refused(image_id, "is used by a container that is being created")
        users = [record.id for record in self._records.all() if record.spec and record.spec.image_id == image_id]
        if users:
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            raise self._refused(image_id, f"is used by container {users[0]!r}{more}; remove that first")
        with _counted(self._removing, image_id):
            yield

    def _refused(self, image_id: str, why: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"image {image_id!r} {why}", resource_type="image", resource_name=image_id, reason="IMAGE_IN_USE"
        )


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
