"""Volumes: their names and drivers, the paths that get anonymous ones, and containers whose mounts are taken over."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from api_service.records.mount import DEFAULT_VOLUME_DRIVER, VolumeDriver
from api_service.validation.mount_paths import parse_destination
from common.errors import Violation

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,252}")
_OPTIONS = ("type", "o", "device")
_FILE_SYSTEM = re.compile(r"[a-zA-Z0-9_.-]{1,32}")
_MAX_OPTION = 4000  # bytes; mount(2) takes a page


def is_volume_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def parse_volume_name(name: str) -> str:
    """Raises ValueError with a sentence."""
    if not is_volume_name(name):
        raise ValueError(
            f"{name[:100]!r} is no name of a volume: a letter or digit, then letters, digits, '_', '.' or '-', "
            "2 to 253 characters; a path of the node begins with '/'"
        )
    return name


def validate_driver(driver: VolumeDriver, field: str) -> list[Violation]:
    """Of a volume that is to be made."""
    if driver.name not in ("", DEFAULT_VOLUME_DRIVER):
        why = f"there is no volume driver {driver.name[:64]!r}, only '{DEFAULT_VOLUME_DRIVER}'; leave it empty"
        return [Violation(field=f"{field}.name", description=why)]
    options = driver.options
    violations = [
        Violation(
            field=f"{field}.options[{json.dumps(key)}]",
            description=f"the driver '{DEFAULT_VOLUME_DRIVER}' knows {', '.join(_OPTIONS)} alone; remove it",
        )
        for key in options
        if key not in _OPTIONS
    ]
    for key in _OPTIONS:
        value = options.get(key, "")
        if "\0" in value or len(value.encode(errors="surrogatepass")) > _MAX_OPTION:
            why = f"holds a NUL character, or more than {_MAX_OPTION} bytes"
            violations.append(Violation(field=f'{field}.options["{key}"]', description=why))
    if options and not (options.get("type") and options.get("device")):
        why = "need both 'type' and 'device', as mount(8) does; for a directory of the node: type none, o bind"
        violations.append(Violation(field=f"{field}.options", description=why))
    elif options and not _FILE_SYSTEM.fullmatch(options["type"]):
        why = f"{options['type'][:64]!r} is no type of a file system"
        violations.append(Violation(field=f'{field}.options["type"]', description=why))
    return violations


def validate_volume_paths(paths: Sequence[str], field: str) -> list[Violation]:
    """`config.volumes`."""
    violations = []
    for index, path in enumerate(paths):
        try:
            parse_destination(path)
        except ValueError as error:
            violations.append(Violation(field=f"{field}[{index}]", description=str(error)))
    return violations


def normalise_volume_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """Of valid paths: each once, in order."""
    return tuple(sorted(set(map(parse_destination, paths))))


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """The container as it is named, and whether its mounts become read-only. Raises ValueError with a sentence."""
    container, colon, mode = text.partition(":")
    if not container:
        raise ValueError(f"{text[:100]!r} names no container; write container, container:ro or container:rw")
    if colon and mode not in ("ro", "rw", "z", "Z"):
        raise ValueError(f"{mode[:64]!r} is no mode here; use ro or rw")
    return container, mode == "ro"


def validate_volumes_from(entries: Sequence[str], field: str) -> list[Violation]:
    violations = []
    for index, entry in enumerate(entries):
        try:
            parse_volumes_from(entry)
        except ValueError as error:
            violations.append(Violation(field=f"{field}[{index}]", description=str(error)))
    return violations
