"""What the executor demands of limits, whoever asks: numbers that mean something, lists that are lists, paths that lead
nowhere else. Pure. What is allowed of what is possible, the API decides."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from common.errors import Violation
from executor_service.container import CONTAINER_ID
from executor_service.limits import DeviceNumber, Resources

_LIST = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")  # cpuset(7), list format
_CGROUP = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+")
_MAX_CGROUP = 1024  # characters
_MAX = 2**63 - 1

_Rules = Iterator[tuple[str, str]]


def resource_violations(resources: Resources, *, field: str) -> list[Violation]:
    rules = (_numbers(resources), _lists(resources), _devices(resources))
    return [Violation(field=f"{field}.{name}", description=text) for found in rules for name, text in found]


def host_violations(resources: Resources, features: Collection[str], *, field: str) -> list[Violation]:
    """Hard limits this node cannot hold: a container without them would not be what was asked for."""
    needs = {
        "memory": ("memory", resources.memory),
        "cpu_quota": ("cpu_cfs", max(resources.cpu_quota, 0)),
        "pids_limit": ("pids", max(resources.pids_limit, 0)),
        "cpuset_cpus": ("cpuset", resources.cpuset_cpus),
        "cpuset_mems": ("cpuset", resources.cpuset_mems),
    }
    return [
        Violation(
            field=f"{field}.{name}",
            description=f"this node's kernel cannot hold it: the cgroup feature {feature!r} is missing; leave it out",
        )
        for name, (feature, value) in needs.items()
        if value and feature not in features
    ]


def cgroup_parent_violations(parent: str, *, field: str) -> list[Violation]:
    """Empty is the node's own."""
    if not parent:
        return []
    parts = parent.split("/")
    if not _CGROUP.fullmatch(parent) or len(parent) > _MAX_CGROUP:
        rule = f"{parent[:80]!a} must be an absolute path of letters, digits and _ . - below the root of the cgroups"
    elif any(CONTAINER_ID.fullmatch(part) for part in parts):
        rule = f"{parent[:80]!a} must not be a container's own cgroup"
    else:
        return []
    return [Violation(field=field, description=rule)]


def _numbers(resources: Resources) -> _Rules:
    rules = (
        ("memory", resources.memory, 0, _MAX),
        ("memory_reservation", resources.memory_reservation, 0, _MAX),
        ("memory_swap", resources.memory_swap, -1, _MAX),
        ("memory_swappiness", resources.memory_swappiness or 0, 0, 100),
        ("cpu_shares", resources.cpu_shares, 0, 262_144),
        ("cpu_period", resources.cpu_period, 0, 1_000_000),
        ("cpu_quota", resources.cpu_quota, -1, _MAX),
        ("pids_limit", resources.pids_limit, -1, _MAX),
        ("blkio_weight", resources.blkio_weight, 0, 1000),
    )
    for name, value, lowest, highest in rules:
        if not lowest <= value <= highest:
            yield name, f"{value} must be {lowest} to {highest}"


def _lists(resources: Resources) -> _Rules:
    for name, text in (("cpuset_cpus", resources.cpuset_cpus), ("cpuset_mems", resources.cpuset_mems)):
        if text and not _LIST.fullmatch(text):
            yield name, f"{text[:80]!a} must be a list as 0-2,5"


def _devices(resources: Resources) -> _Rules:
    lists: dict[str, tuple[Sequence[DeviceNumber], int]] = {
        "blkio_weight_device": (resources.blkio_weight_device, 1000),
        "blkio_read_bps": (resources.blkio_read_bps, _MAX),
        "blkio_write_bps": (resources.blkio_write_bps, _MAX),
        "blkio_read_iops": (resources.blkio_read_iops, 2**32 - 1),
        "blkio_write_iops": (resources.blkio_write_iops, 2**32 - 1),
    }
    for name, (devices, highest) in lists.items():
        for index, device in enumerate(devices):
            if not device.path.startswith("/") or "\0" in device.path:
                yield f"{name}[{index}].path", f"{device.path[:80]!a} must be an absolute path"
            if not 1 <= device.value <= highest:
                yield f"{name}[{index}].value", f"{device.value} must be 1 to {highest}"
