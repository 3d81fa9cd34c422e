"""Devices of the node inside a container (OCI runtime-spec, config-linux.md#devices and #allowed-device-list).

A device is looked up by its path once, at start: the container gets its type and numbers, whatever becomes of the path.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.cdi.edits import REQUESTS
from executor_service.container import ContainerSpec, Device, DeviceNode, DeviceRule

# null, zero, random, urandom, tty, console; the runtime adds pts, ptmx and mknod itself.
_ALLOWED_DEVICES = (("c", 1, 5), ("c", 1, 3), ("c", 1, 9), ("c", 1, 8), ("c", 5, 0), ("c", 5, 1))
# Every container has these of its own, and the directories below /dev that are file systems of the host's.
_OWN = frozenset({"console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"})
_FILE_SYSTEMS = frozenset({"mqueue", "pts", "shm", ".lxc", ".lxd-mounts", ".udev"})
_DEV = Path("/dev")
_MAX_DEVICES = 16384
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDevice:
    """`path` is the container's. `type`: `b` or `c`. `permissions`: of `rwm`, for the device cgroup."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    permissions: str = "rwm"


def find_devices(spec: ContainerSpec) -> list[HostDevice]:
    """Every device the container gets beside the usual ones, later ones replacing earlier ones of the same path.
    Blocks. Raises InvalidArgument, which names the device, for what is no device."""
    found = list(_all_devices()) if spec.security.privileged else []
    violations: list[Violation] = []
    for index, device in enumerate(spec.devices):
        field = f"host_config.devices[{index}].path_on_host" if device.node is None else REQUESTS
        try:
            found += _mapped(device) if device.node is None else [_described(device, device.node)]
        except OSError as error:
            violations.append(Violation(field=field, description=f"{device.source!r}: {error.strerror} on the node"))
        except ValueError as error:
            violations.append(Violation(field=field, description=str(error)))
    if violations:
        raise InvalidArgument(violations=violations)
    return list({device.path: device for device in found}.values())


def device_nodes(devices: Iterable[HostDevice]) -> list[dict[str, object]]:
    """The OCI `linux.devices`."""
    return [
        {
            "path": device.path,
            "type": device.type,
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
        }
        for device in devices
    ]


def device_rules(spec: ContainerSpec, devices: Sequence[HostDevice]) -> list[dict[str, object]]:
    """The OCI `linux.resources.devices`: everything when it is privileged, else nothing but the usual, the devices
    given, and what the rules add."""
    if spec.security.privileged:
        return [{"allow": True, "access": "rwm"}]
    allowed: list[dict[str, object]] = [_rule(kind, major, minor, "rwm") for kind, major, minor in _ALLOWED_DEVICES]
    allowed += [_rule(each.type, each.major, each.minor, each.permissions) for each in devices]
    allowed += [_asked(rule) for rule in spec.device_rules]
    return [{"allow": False, "access": "rwm"}, *allowed]


def _asked(rule: DeviceRule) -> dict[str, object]:
    return _rule(rule.type, rule.major, rule.minor, rule.permissions)


def _rule(kind: str, major: int, minor: int, access: str) -> dict[str, object]:
    rule: dict[str, object] = {"allow": True, "type": kind, "access": access}
    # Numbers that are left out mean all.
    rule |= {name: number for name, number in (("major", major), ("minor", minor)) if number >= 0}
    return rule


def _mapped(device: Device) -> Iterator[HostDevice]:
    source = Path(device.source)
    status = source.stat()
    if not stat.S_ISDIR(status.st_mode):
        if (single := _device(device.target, status, device.permissions)) is None:
            raise ValueError(f"{device.source!r} is no device and no directory of devices; name one of the node's /dev")
        yield single
        return
    devices = [
        found
        for path, status in _below(source.resolve())
        if (found := _device(posixpath.join(device.target, path), status, device.permissions)) is not None
    ]
    if not devices:
        raise ValueError(f"there is no device in the directory {device.source!r}")
    yield from devices


def _described(device: Device, node: DeviceNode) -> HostDevice:
    """The numbers that are given are not looked up."""
    if node.type:
        own = HostDevice(
            path=device.target, type=node.type, major=node.major, minor=node.minor, mode=0o660, uid=0, gid=0
        )
    else:
        looked_up = _device(device.target, Path(device.source).stat(), device.permissions)
        if looked_up is None:
            raise ValueError(f"{device.source!r} is no device")
        own = looked_up
    return replace(
        own,
        permissions=device.permissions,
        mode=own.mode if node.mode is None else node.mode,
        uid=own.uid if node.uid is None else node.uid,
        gid=own.gid if node.gid is None else node.gid,
    )


def _all_devices() -> Iterator[HostDevice]:
    for path, status in _below(_DEV):
        if path not in _OWN and (device := _device(f"/dev/{path}", status, "rwm")) is not None:
            yield device


def _below(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below, by its relative path; links are not followed, so nothing comes twice or from elsewhere."""
    pending = [("", directory, 0)]
    count = 0
    while pending:
        prefix, current, depth = pending.pop()
        with os.scandir(current) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                count += 1
                if count > _MAX_DEVICES:
                    raise ValueError(f"{os.fspath(directory)!r} holds more than {_MAX_DEVICES} files; name single ones")
                path = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if depth < _MAX_DEPTH and not (current == _DEV and entry.name in _FILE_SYSTEMS):
                        pending.append((f"{path}/", current / entry.name, depth + 1))
                    continue
                yield path, entry.stat(follow_symlinks=False)


def _device(path: str, status: os.stat_result, permissions: str) -> HostDevice | None:
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    return HostDevice(
        path=path,
        type="c" if stat.S_ISCHR(status.st_mode) else "b",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        permissions=permissions,
    )
