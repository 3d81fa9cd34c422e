"""The files of CDI specifications, and the devices in them.

A directory overrules the ones before it. Two specifications in one directory that have the same device, and a file that
is not understood, take only their own devices away.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from executor_service.cdi.specification import CdiDevice, CdiSpecification

DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))

_MAX_SIZE = 1024 * 1024  # bytes; that of a machine with eight graphics cards has some 50,000
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDevice:
    specification: CdiSpecification
    device: CdiDevice
    file: Path


@dataclass(slots=True, kw_only=True)
class CdiDevices:
    """By their full names, `vendor/class=name`. `broken`: why a file, or a device in it, cannot be used."""

    devices: dict[str, FoundDevice] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def find_cdi_devices(directories: Sequence[Path]) -> CdiDevices:
    """Blocks."""
    found = CdiDevices()
    for directory in directories:
        here: dict[str, FoundDevice] = {}
        for file in _files(directory):
            try:
                specification = read_specification(file)
            except (OSError, ValueError) as error:
                found.broken[str(file)] = _sentence(error)
                continue
            for device in specification.devices:
                name = f"{specification.kind}={device.name}"
                if (other := here.get(name)) is not None:
                    found.broken[name] = f"both {other.file} and {file} have it"
                here[name] = FoundDevice(specification=specification, device=device, file=file)
        found.devices |= here
        for name in here.keys() & found.broken.keys():
            del found.devices[name]
    return found


def read_specification(file: Path) -> CdiSpecification:
    """Raises OSError, ValueError. Blocks."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError("others than root may write it, and it decides what containers get of the node")
        content = opened.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise ValueError(f"it has more than {_MAX_SIZE} bytes")
    try:
        tree = json.loads(content) if file.suffix == ".json" else _yaml(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return CdiSpecification.model_validate(tree)


def _yaml(content: bytes) -> object:
    # Only a node that has such files pays for the parser.
    import yaml

    depth = 0
    try:
        for event in yaml.parse(content, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError("aliases can make a small file a huge one, and are not read")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise yaml.YAMLError("it is nested too deeply")
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(f"it cannot be read as YAML: {' '.join(str(error).split())}") from error


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix in (".json", ".yaml"))
    except OSError:
        return []


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
