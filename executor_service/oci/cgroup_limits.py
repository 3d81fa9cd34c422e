"""A container's limits as contents of cgroup files, and the way there from what a cgroup holds now. Pure.

Sources: the kernel's cgroup-v1/{memory,blkio-controller,cpusets,pids}.rst, scheduler/sched-bwc.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from executor_service.limits import DeviceNumber, Resources
from executor_service.oci.block_devices import BlockDevices

DEFAULT_PERIOD = 100_000  # microseconds
_DEFAULT_SHARES = 1024
_DEFAULT_WEIGHT = 100  # BFQ's
_V1_UNLIMITED = 2**62  # what a v1 file says of no limit is a little below 2**63
_THROTTLES = ("rbps", "wbps", "riops", "wiops")
V1_DEVICE_FILES = (
    "blkio.bfq.weight_device",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
)
V2_DEVICE_FILES = ("io.max", "io.bfq.weight")
PARENT = "(its parent's)"
"""A value that must be read from the parent first: v1 cpusets cannot be emptied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """`value` for one file of one controller. With `device` (`254:0`) it is that device's line of the file. `default`:
    nothing was asked for, so a kernel without the file does as well."""

    controller: str
    file: str
    value: str
    device: str = ""
    default: bool = False

    @property
    def text(self) -> str:
        """What is written."""
        return f"{self.device} {self.value}" if self.device else self.value


def v1_settings(resources: Resources, devices: BlockDevices) -> list[Setting]:
    """Every file that limits a container, those without a limit included."""
    wanted = resources
    settings = [
        _number("memory", "memory.limit_in_bytes", wanted.memory, none="-1"),
        _number("memory", "memory.memsw.limit_in_bytes", max(wanted.memory_swap, 0), none="-1"),
        _number("memory", "memory.soft_limit_in_bytes", wanted.memory_reservation, none="-1"),
        _number("cpu", "cpu.shares", wanted.cpu_shares, none=str(_DEFAULT_SHARES)),
        _number("cpu", "cpu.cfs_period_us", wanted.cpu_period, none=str(DEFAULT_PERIOD)),
        _number("cpu", "cpu.cfs_quota_us", max(wanted.cpu_quota, 0), none="-1"),
        _text("cpuset", "cpuset.cpus", wanted.cpuset_cpus, none=PARENT),
        _text("cpuset", "cpuset.mems", wanted.cpuset_mems, none=PARENT),
        _number("pids", "pids.max", max(wanted.pids_limit, 0), none="max"),
        _number("blkio", "blkio.bfq.weight", wanted.blkio_weight, none=str(_DEFAULT_WEIGHT)),
        *_lines("blkio", "blkio.bfq.weight_device", wanted.blkio_weight_device, devices),
        *_lines("blkio", "blkio.throttle.read_bps_device", wanted.blkio_read_bps, devices),
        *_lines("blkio", "blkio.throttle.write_bps_device", wanted.blkio_write_bps, devices),
        *_lines("blkio", "blkio.throttle.read_iops_device", wanted.blkio_read_iops, devices),
        *_lines("blkio", "blkio.throttle.write_iops_device", wanted.blkio_write_iops, devices),
    ]
    if wanted.memory_swappiness is not None:
        settings.append(_text("memory", "memory.swappiness", str(wanted.memory_swappiness), none=""))
    return settings


def v2_settings(resources: Resources, devices: BlockDevices) -> list[Setting]:
    """The same for cgroup v2. There is no swappiness."""
    wanted = resources
    swap = str(wanted.memory_swap - wanted.memory) if wanted.memory_swap > 0 else ""
    quota = str(wanted.cpu_quota) if wanted.cpu_quota > 0 else "max"
    weight = str(cpu_weight(wanted.cpu_shares)) if wanted.cpu_shares else ""
    return [
        _number("memory", "memory.max", wanted.memory, none="max"),
        _text("memory", "memory.swap.max", swap, none="max"),
        _number("memory", "memory.low", wanted.memory_reservation, none="0"),
        _text("cpu", "cpu.weight", weight, none=str(cpu_weight(_DEFAULT_SHARES))),
        Setting(
            controller="cpu",
            file="cpu.max",
            value=f"{quota} {wanted.cpu_period or DEFAULT_PERIOD}",
            default=not (wanted.cpu_quota > 0 or wanted.cpu_period),
        ),
        _text("cpuset", "cpuset.cpus", wanted.cpuset_cpus, none=""),
        _text("cpuset", "cpuset.mems", wanted.cpuset_mems, none=""),
        _number("pids", "pids.max", max(wanted.pids_limit, 0), none="max"),
        _number("io", "io.bfq.weight", wanted.blkio_weight, none=str(_DEFAULT_WEIGHT)),
        *_lines("io", "io.bfq.weight", wanted.blkio_weight_device, devices),
        *_io_max(wanted, devices),
    ]


def cpu_weight(shares: int) -> int:
    """cgroup v2's weight for v1's shares: 2 becomes 1, 1024 becomes 100, 262144 becomes 10000, and what lies between
    keeps its proportion to the default as well as a curve can. Source: runc and crun since 2025,
    https://github.com/kubernetes/kubernetes/issues/131216"""
    logarithm = math.log2(min(max(shares, 2), 262_144))
    exponent = (logarithm * logarithm + 125 * logarithm) / 612 - 7 / 34
    return min(max(math.ceil(10**exponent), 1), 10_000)


def changes(settings: Sequence[Setting], current: Mapping[tuple[str, str], str]) -> list[Setting]:
    """What has to be written, in the order the kernel accepts. `current`: contents by (file, device); a device that has
    a line now and is not wanted any more is reset."""
    wanted = {(setting.file, setting.device) for setting in settings}
    found = [
        setting
        for setting in settings
        if (setting.file, setting.device) not in current
        or not same(setting.value, current[setting.file, setting.device])
    ]
    controllers = {setting.file: setting.controller for setting in settings}
    for file, device in current:
        if device and (file, device) not in wanted:
            controller = controllers.get(file, file.partition(".")[0])
            found.append(Setting(controller=controller, file=file, device=device, value=reset_value(file)))
    return _ordered(found, current)


def undo_of(setting: Setting, current: Mapping[tuple[str, str], str]) -> Setting:
    """The write that takes another back."""
    before = current.get((setting.file, setting.device), reset_value(setting.file))
    return Setting(controller=setting.controller, file=setting.file, device=setting.device, value=before)


def reset_value(file: str) -> str:
    """What removes a device's line from a file."""
    if file == "io.max":
        return " ".join(f"{name}=max" for name in _THROTTLES)
    return "default" if file == "io.bfq.weight" else "0"


def lines(text: str) -> dict[str, str]:
    """A file with a line for each device, by device. `default 100`, `Total 5` and the like are no devices."""
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and ":" in pair[0]}


def same(wanted: str, found: str) -> bool:
    """Whether a file that says `found` needs no write of `wanted`."""
    found = found.strip()
    if found.startswith("default ") and " " not in wanted:
        found = found.splitlines()[0].removeprefix("default ")  # io.bfq.weight
    if wanted == "-1" and found.isdigit():
        return int(found) >= _V1_UNLIMITED
    return wanted == found


def _ordered(found: list[Setting], current: Mapping[tuple[str, str], str]) -> list[Setting]:
    """v1 keeps memory at or below memory with swap at every moment: whichever grows goes first where it must."""
    with_swap = next((setting for setting in found if setting.file == "memory.memsw.limit_in_bytes"), None)
    if with_swap is None:
        return found
    grows = _amount(with_swap.value) >= _amount(current.get((with_swap.file, ""), "0"))
    others = [setting for setting in found if setting is not with_swap]
    place = 0 if grows else next((i + 1 for i, each in enumerate(others) if each.file == "memory.limit_in_bytes"), 0)
    return [*others[:place], with_swap, *others[place:]]


def _amount(value: str) -> float:
    return math.inf if value.strip() == "-1" else float(value)


def _number(controller: str, file: str, value: int, *, none: str) -> Setting:
    return _text(controller, file, str(value) if value else "", none=none)


def _text(controller: str, file: str, value: str, *, none: str) -> Setting:
    return Setting(controller=controller, file=file, value=value or none, default=not value)


def _lines(controller: str, file: str, limits: Sequence[DeviceNumber], devices: BlockDevices) -> list[Setting]:
    return [
        Setting(controller=controller, file=file, device=_name(limit.path, devices), value=str(limit.value))
        for limit in limits
    ]


def _io_max(wanted: Resources, devices: BlockDevices) -> list[Setting]:
    """One line a device, with all four of its limits."""
    by_name: dict[str, dict[str, str]] = {}
    lists = (wanted.blkio_read_bps, wanted.blkio_write_bps, wanted.blkio_read_iops, wanted.blkio_write_iops)
    for name, limits in zip(_THROTTLES, lists, strict=True):
        for limit in limits:
            device = by_name.setdefault(_name(limit.path, devices), dict.fromkeys(_THROTTLES, "max"))
            device[name] = str(limit.value)
    return [
        Setting(
            controller="io", file="io.max", device=device, value=" ".join(f"{key}={limits[key]}" for key in _THROTTLES)
        )
        for device, limits in by_name.items()
    ]


def _name(path: str, devices: BlockDevices) -> str:
    major, minor = devices[path]
    return f"{major}:{minor}"
