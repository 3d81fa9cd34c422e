"""Devices of the node, and rules of the device cgroup. Source: docker run(1), --device and --device-cgroup-rule;
kernel Documentation/admin-guide/cgroup-v1/devices.rst"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from api_service.executor_client.container_spec import DeviceRule
from api_service.records.resources import DeviceMapping
from api_service.validation.process import clean_path
from common.errors import Violation

ALL_PERMISSIONS = "rwm"

_PERMISSIONS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}")
_RULE = re.compile(r"([abc]) ([0-9]{1,10}|\*):([0-9]{1,10}|\*) ([rwm]{1,3})")
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1  # MINORBITS, linux/kdev_t.h
_MAX_PATH = 4095  # bytes, PATH_MAX without its NUL


def normalise_device(device: DeviceMapping) -> DeviceMapping:
    return DeviceMapping(
        path_on_host=clean_path(device.path_on_host),
        path_in_container=clean_path(device.path_in_container or device.path_on_host),
        cgroup_permissions=device.cgroup_permissions or ALL_PERMISSIONS,
    )


def validate_devices(devices: Sequence[DeviceMapping], field: str) -> list[Violation]:
    violations: list[Violation] = []
    seen: set[str] = set()
    for index, device in enumerate(devices):
        path = f"{field}[{index}]"
        for name, text in (("path_on_host", device.path_on_host), ("path_in_container", device.path_in_container)):
            if (text or name == "path_on_host") and (why := _path_fault(text)):
                violations.append(Violation(field=f"{path}.{name}", description=why))
        if device.cgroup_permissions and not _PERMISSIONS.fullmatch(device.cgroup_permissions):
            why = f"{device.cgroup_permissions[:64]!r} must be of r, w and m, each at most once"
            violations.append(Violation(field=f"{path}.cgroup_permissions", description=why))
        target = clean_path(device.path_in_container or device.path_on_host)
        if target in seen:
            why = f"another device is at {target[:80]!r} already; choose another path"
            violations.append(Violation(field=f"{path}.path_in_container", description=why))
        seen.add(target)
    return violations


def parse_device_rule(text: str) -> DeviceRule:
    """Raises ValueError with a sentence."""
    match = _RULE.fullmatch(text)
    if match is None or len(set(match[4])) != len(match[4]):
        rule = "write a, b or c, a blank, major:minor (numbers or *), a blank, and of r, w and m, as in 'c 10:200 rwm'"
        raise ValueError(f"{text[:64]!r} is not a device rule: {rule}")
    major, minor = (-1 if number == "*" else int(number) for number in match.group(2, 3))
    if major > _MAX_MAJOR or minor > _MAX_MINOR:
        raise ValueError(f"{text[:64]!r}: device numbers go to {_MAX_MAJOR}:{_MAX_MINOR}")
    return DeviceRule(type=match[1], major=major, minor=minor, permissions=match[4])


def validate_device_rules(rules: Sequence[str], field: str) -> list[Violation]:
    violations: list[Violation] = []
    for index, rule in enumerate(rules):
        try:
            parse_device_rule(rule)
        except ValueError as error:
            violations.append(Violation(field=f"{field}[{index}]", description=str(error)))
    return violations


def _path_fault(path: str) -> str | None:
    if not path.startswith("/"):
        return f"{path[:80]!r} is not an absolute path; begin it with '/'"
    if not path.isprintable() or len(path.encode(errors="surrogatepass")) > _MAX_PATH:
        return f"must be printable, and at most {_MAX_PATH} bytes long"
    if posixpath.normpath(path) in ("/", "//"):
        return "'/' is no device; name one, or a directory of devices"
    return None
