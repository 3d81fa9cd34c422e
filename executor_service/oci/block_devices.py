"""The block devices that limits name, by their numbers. Blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.limits import DeviceNumber, Resources

BlockDevices = Mapping[str, tuple[int, int]]
"""(major, minor) by path."""

_SYS = Path("/sys/dev/block")


def block_devices(resources: Resources) -> BlockDevices:
    """Of every path the resources name. Raises InvalidArgument for each that is no whole disk of this node."""
    found: dict[str, tuple[int, int]] = {}
    violations: list[Violation] = []
    for field, device in _named(resources):
        try:
            found[device.path] = _number(device.path)
        except ValueError as error:
            violations.append(Violation(field=f"resources.{field}.path", description=f"{device.path!a} {error}"))
    if violations:
        raise InvalidArgument(violations=violations)
    return found


def _named(resources: Resources) -> Iterator[tuple[str, DeviceNumber]]:
    """With the protocol's names of the fields."""
    lists = {
        "blkio_weight_device": resources.blkio_weight_device,
        "blkio_device_read_bps": resources.blkio_read_bps,
        "blkio_device_write_bps": resources.blkio_write_bps,
        "blkio_device_read_iops": resources.blkio_read_iops,
        "blkio_device_write_iops": resources.blkio_write_iops,
    }
    for name, devices in lists.items():
        for index, device in enumerate(devices):
            yield f"{name}[{index}]", device


def _number(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"is not on this node: {why}; lsblk(8) lists its disks") from error
    if not stat.S_ISBLK(status.st_mode):
        raise ValueError("is no block device; lsblk(8) lists the node's")
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    # The kernel's block controller knows whole disks only (cgroup-v1/blkio-controller.rst).
    if (_SYS / f"{major}:{minor}" / "partition").exists():
        raise ValueError("is a partition, and limits are for whole disks; name its disk")
    return major, minor
