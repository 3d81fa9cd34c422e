"""What a container may use: the rules, what the node cannot do, the defaults. Pure.

Source: Docker's verifyPlatformContainerResources and adaptContainerSettings of today. A limit the node's kernel cannot
hold is dropped with a warning, not refused, as Docker does; `nano_cpus`, which would be half held, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api_service.records.resources import DeviceNumber, Resources
from api_service.validation.cpuset import normalise_cpuset, validate_cpuset
from api_service.validation.host_facts import HostFacts
from common.errors import Violation

MINIMUM_MEMORY = 6 * 1024 * 1024  # bytes
UNLIMITED = -1
_CPU = 1_000_000_000  # nano CPUs
_LEAST_CPU = _CPU // 100
_MAX_SHARES = 262_144

_Rules = Iterator[tuple[str, str]]


def validate_resources(
    resources: Resources, facts: HostFacts, field: str, *, current: Resources | None = None
) -> list[Violation]:
    """`current`: what holds now, for an update; `resources` is then that with the changes."""
    found = (_memory(resources, current), _cpu(resources, facts, current), _pids_and_disks(resources))
    violations = [Violation(field=f"{field}.{name}", description=text) for rules in found for name, text in rules]
    for name, text, available in (
        ("cpuset_cpus", resources.cpuset_cpus, facts.cpuset_cpus),
        ("cpuset_mems", resources.cpuset_mems, facts.cpuset_mems),
    ):
        if text:
            violations += validate_cpuset(text, available, f"{field}.{name}")
    return violations


def validate_oom_score_adj(score: int, field: str) -> list[Violation]:
    if -1000 <= score <= 1000:
        return []
    return [Violation(field=field, description=f"{score} is out of range; give -1000 (never) to 1000 (first)")]


def _memory(wanted: Resources, current: Resources | None) -> _Rules:
    memory, swap, reservation = wanted.memory, wanted.memory_swap, wanted.memory_reservation
    for name, value in (("memory", memory), ("memory_reservation", reservation)):
        if value and value < MINIMUM_MEMORY:
            yield name, f"{value} bytes is below the minimum of {MINIMUM_MEMORY} (6 MiB); give more, or 0 for none"
    if swap < UNLIMITED:
        yield "memory_swap", f"{swap} is negative; give bytes, {UNLIMITED} for any amount, or 0 for the default"
    if memory > 0 and 0 < swap < memory:
        if current is not None and swap == current.memory_swap:
            yield (
                "memory",
                f"{memory} bytes is more than the {swap} that the container has for memory and swap together; give "
                "memory_swap too",
            )
        else:
            yield "memory_swap", f"{swap} bytes, memory and swap together, is less than memory alone, {memory}"
    if memory == 0 and swap > 0 and current is None:
        yield "memory_swap", "needs memory: a limit for both together is none for memory alone"
    if 0 < memory < reservation:
        yield "memory_reservation", f"{reservation} bytes is more than memory, {memory}; give at most that"
    if wanted.memory_swappiness is not None and not -1 <= wanted.memory_swappiness <= 100:
        yield "memory_swappiness", f"{wanted.memory_swappiness} is out of range; give 0 to 100"


def _cpu(wanted: Resources, facts: HostFacts, current: Resources | None) -> _Rules:
    yield from _nano_cpus(wanted, facts, current)
    if wanted.cpu_shares and not 2 <= wanted.cpu_shares <= _MAX_SHARES:
        yield "cpu_shares", f"{wanted.cpu_shares} is out of range; give 2 to {_MAX_SHARES}, or 0 for the default"
    if wanted.cpu_period and not 1000 <= wanted.cpu_period <= 1_000_000:
        yield "cpu_period", f"{wanted.cpu_period} µs is out of range; give 1000 (1 ms) to 1000000 (1 s)"
    if 0 < wanted.cpu_quota < 1000:
        yield (
            "cpu_quota",
            f"{wanted.cpu_quota} µs is too little; give at least 1000 (1 ms), or {UNLIMITED} for none",
        )


def _nano_cpus(wanted: Resources, facts: HostFacts, current: Resources | None) -> _Rules:
    if not wanted.nano_cpus:
        return
    highest = facts.cpus * _CPU if facts.cpus else wanted.nano_cpus
    if not _LEAST_CPU <= wanted.nano_cpus <= highest:
        most = f"{facts.cpus}.00, for the node has {facts.cpus} processors" if facts.cpus else "what the node has"
        yield "nano_cpus", f"{wanted.nano_cpus} is {wanted.nano_cpus / _CPU:g} processors; the range is 0.01 to {most}"
    if "cpu_cfs" not in facts.cgroup_features:
        yield "nano_cpus", "the node's kernel has no CFS bandwidth control, which this needs; leave it out"
    for name, value in (("cpu_period", wanted.cpu_period), ("cpu_quota", wanted.cpu_quota)):
        if value <= 0:
            continue
        if current is not None and current.nano_cpus and not getattr(current, name):
            yield name, f"conflicts with nano_cpus, {current.nano_cpus}, which the container has; change that instead"
        elif current is not None and getattr(current, name) and not current.nano_cpus:
            yield "nano_cpus", f"conflicts with {name}, {value}, which the container has; change that instead"
        else:
            yield "nano_cpus", f"conflicts with {name}: both say how much processor time; give one of them"


def _pids_and_disks(wanted: Resources) -> _Rules:
    if wanted.pids_limit is not None and wanted.pids_limit < UNLIMITED:
        yield "pids_limit", f"{wanted.pids_limit} is negative; give a number, or {UNLIMITED} or 0 for no limit"
    if wanted.blkio_weight and not 10 <= wanted.blkio_weight <= 1000:
        yield "blkio_weight", f"{wanted.blkio_weight} is out of range; give 10 to 1000, or 0 for the node's"
    for name in _DEVICE_LISTS:
        devices: Sequence[DeviceNumber] = getattr(wanted, name)
        seen: set[str] = set()
        for index, device in enumerate(devices):
            if device.path in seen:
                yield f"{name}[{index}].path", f"{device.path[:80]!r} is there twice; give each device once"
            seen.add(device.path)


_DEVICE_LISTS = (
    "blkio_weight_device",
    "blkio_device_read_bps",
    "blkio_device_write_bps",
    "blkio_device_read_iops",
    "blkio_device_write_iops",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Resources with their defaults, without what the node cannot do; `warnings` say what that was, a sentence each."""

    resources: Resources
    warnings: tuple[str, ...] = ()


# The feature of the node that each limit needs, what that is called, and what stands for no limit.
_NEEDS: Sequence[tuple[str, str, str, Any]] = (
    ("memory", "memory", "limit memory", 0),
    ("memory_reservation", "memory", "reserve memory", 0),
    ("memory_swappiness", "memory_swappiness", "set how eagerly a container's memory is swapped", None),
    ("cpu_shares", "cpu_shares", "weigh containers' processor time", 0),
    ("cpu_period", "cpu_cfs", "limit processor time", 0),
    ("cpu_quota", "cpu_cfs", "limit processor time", 0),
    ("cpuset_cpus", "cpuset", "bind containers to processors", ""),
    ("cpuset_mems", "cpuset", "bind containers to memory nodes", ""),
    ("pids_limit", "pids", "limit the number of processes", None),
    ("blkio_weight", "blkio_weight", "weigh containers' use of disks", 0),
    ("blkio_weight_device", "blkio_weight", "weigh containers' use of disks", ()),
    ("blkio_device_read_bps", "blkio_throttle", "limit the use of disks", ()),
    ("blkio_device_write_bps", "blkio_throttle", "limit the use of disks", ()),
    ("blkio_device_read_iops", "blkio_throttle", "limit the use of disks", ()),
    ("blkio_device_write_iops", "blkio_throttle", "limit the use of disks", ()),
)


def fit_resources(resources: Resources, facts: HostFacts, field: str) -> Fitted:
    """Of valid resources."""
    fitted, warnings = _plain(resources), []
    for name, feature, what, nothing in _NEEDS:
        if getattr(fitted, name) not in (nothing, UNLIMITED) and feature not in facts.cgroup_features:
            fitted = replace(fitted, **{name: nothing})
            warnings.append(f"The node's kernel cannot {what}: {field}.{name} is dropped.")
    if fitted.memory_swap and "memory" not in facts.cgroup_features:
        fitted = replace(fitted, memory_swap=0)
    if fitted.memory and fitted.memory_swap != UNLIMITED and "memory_swap" not in facts.cgroup_features:
        fitted = replace(fitted, memory_swap=UNLIMITED)
        warnings.append(f"The node's kernel cannot limit swap: {field}.memory limits memory alone.")
    if fitted.memory and not fitted.memory_swap:
        fitted = replace(fitted, memory_swap=2 * fitted.memory)
    return Fitted(resources=fitted, warnings=tuple(warnings))


def _plain(resources: Resources) -> Resources:
    """With one word for each thing that has several."""
    return replace(
        resources,
        memory_swappiness=None if resources.memory_swappiness == -1 else resources.memory_swappiness,
        cpu_quota=max(resources.cpu_quota, UNLIMITED),
        pids_limit=resources.pids_limit if resources.pids_limit and resources.pids_limit > 0 else None,
        cpuset_cpus=normalise_cpuset(resources.cpuset_cpus),
        cpuset_mems=normalise_cpuset(resources.cpuset_mems),
    )
