"""Where output is kept: the json-file driver and its options, sizes as Docker writes them, or nowhere (`none`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from api_service.records.config import LogConfig
from api_service.validation.sizes import BINARY, DECIMAL, parse_size
from common.errors import Violation

JSON_FILE = "json-file"
NOWHERE = "none"
MAX_SIZE = "max-size"
MAX_FILE = "max-file"
MODE = "mode"
BLOCKING = "blocking"
NON_BLOCKING = "non-blocking"
MAX_BUFFER_SIZE = "max-buffer-size"
DEFAULT_BUFFER_SIZE = "1m"
# Docker keeps one file without a bound; full disks are what its users report most.
DEFAULT_OPTIONS: Mapping[str, str] = {MAX_SIZE: "10m", MAX_FILE: "5"}

_MOST_FILES = 1000  # a rotation renames every one of them
_LARGEST_BUFFER = 1024**3  # bytes of the node's memory for one container
_COUNT = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBounds:
    """`max_size`: bytes a file; `max_files`: files kept, the one being written included; `buffer`: bytes that may wait
    to be written while the program goes on, 0 when it waits itself."""

    max_size: int
    max_files: int
    buffer: int = 0


def log_bounds(config: LogConfig) -> LogBounds:
    """Of a valid configuration; options that are absent have their defaults."""
    options = _with_defaults(config.config)
    size = parse_size(options[MAX_SIZE], DECIMAL)
    assert size is not None, "the configuration was validated"
    buffer = parse_size(options[MAX_BUFFER_SIZE], BINARY) if options.get(MODE) == NON_BLOCKING else 0
    assert buffer is not None, "the configuration was validated"
    return LogBounds(max_size=size, max_files=int(options[MAX_FILE]), buffer=buffer)


def normalise_log_config(config: LogConfig) -> LogConfig:
    if config.type == NOWHERE:
        return config
    return LogConfig(type=config.type or JSON_FILE, config=_with_defaults(config.config))


def _with_defaults(options: Mapping[str, str]) -> dict[str, str]:
    buffer = {MAX_BUFFER_SIZE: DEFAULT_BUFFER_SIZE} if options.get(MODE) == NON_BLOCKING else {}
    return {**DEFAULT_OPTIONS, **buffer, **options}


def validate_log_config(config: LogConfig, field: str) -> list[Violation]:
    if config.type not in ("", JSON_FILE, NOWHERE):
        unknown = (
            f"the log driver {config.type[:64]!r} is not supported; use '{JSON_FILE}' (also when it is empty), or "
            f"'{NOWHERE}' to keep no output"
        )
        return [Violation(field=f"{field}.type", description=unknown)]
    if config.type == NOWHERE and config.config:
        needless = f"the log driver '{NOWHERE}' takes no options; leave them out, or use '{JSON_FILE}'"
        return [Violation(field=f"{field}.config", description=needless)]
    return [
        Violation(field=f"{field}.config[{json.dumps(name)}]", description=why)
        for name, value in config.config.items()
        if (why := _fault(name, value, config.config)) is not None
    ]


def _fault(name: str, value: str, options: Mapping[str, str]) -> str | None:
    match name:
        case "max-size":
            if parse_size(value, DECIMAL) is None:
                return f"{value[:64]!r} is not a size: give a positive number with k, m or g after it, like '10m'"
        case "max-file":
            if not _COUNT.fullmatch(value) or not 1 <= int(value) <= _MOST_FILES:
                return f"{value[:64]!r} is not a number of files from 1 to {_MOST_FILES}"
        case "mode":
            if value not in (BLOCKING, NON_BLOCKING):
                return f"{value[:64]!r} is not a mode; use '{BLOCKING}' (also when it is left out) or '{NON_BLOCKING}'"
        case "max-buffer-size":
            size = parse_size(value, BINARY)
            if size is None or size > _LARGEST_BUFFER:
                return f"{value[:64]!r} is not a size from 1 byte to 1 GiB: give a number like '4m', or leave it out"
            if options.get(MODE) != NON_BLOCKING:
                return f"belongs to the mode '{NON_BLOCKING}'; leave it out, or set '{MODE}' to that"
        case _:
            known = f"'{MAX_SIZE}', '{MAX_FILE}', '{MODE}' and '{MAX_BUFFER_SIZE}'"
            return f"{JSON_FILE} has no such option here; it has {known}"
    return None
