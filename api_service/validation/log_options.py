"""Where output is kept: the json-file driver and its options, sizes as Docker writes them, or nowhere (`none`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from api_service.records.config import LogConfig
from common.errors import Violation

JSON_FILE = "json-file"
NOWHERE = "none"
MAX_SIZE = "max-size"
MAX_FILE = "max-file"
MODE = "mode"
BLOCKING = "blocking"
# Docker keeps one file without a bound; full disks are what its users report most.
DEFAULT_OPTIONS: Mapping[str, str] = {MAX_SIZE: "10m", MAX_FILE: "5"}

_MOST_FILES = 1000  # a rotation renames every one of them
_MOST_BYTES = 2**63 - 1
# Docker reads this option with decimal units: 10m is ten million bytes (go-units, FromHumanSize).
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBounds:
    """`max_size`: bytes a file; `max_files`: files kept, the one being written included."""

    max_size: int
    max_files: int


def parse_size(text: str) -> int | None:
    """Bytes, at least 1; None when `text` is no size."""
    if (match := _SIZE.fullmatch(text)) is None:
        return None
    size = (
        int(float(match[1]) * _UNITS[match[2].lower()]) if "." in match[1] else int(match[1]) * _UNITS[match[2].lower()]
    )
    return size if 1 <= size <= _MOST_BYTES else None


def log_bounds(config: LogConfig) -> LogBounds:
    """Of a valid configuration; options that are absent have their defaults."""
    options = {**DEFAULT_OPTIONS, **config.config}
    size = parse_size(options[MAX_SIZE])
    assert size is not None, "the configuration was validated"
    return LogBounds(max_size=size, max_files=int(options[MAX_FILE]))


def normalise_log_config(config: LogConfig) -> LogConfig:
    if config.type == NOWHERE:
        return config
    return LogConfig(type=config.type or JSON_FILE, config={**DEFAULT_OPTIONS, **config.config})


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
        if (why := _fault(name, value)) is not None
    ]


def _fault(name: str, value: str) -> str | None:
    match name:
        case "max-size":
            if parse_size(value) is None:
                return f"{value[:64]!r} is not a size: give a positive number with k, m or g after it, like '10m'"
        case "max-file":
            if not _COUNT.fullmatch(value) or not 1 <= int(value) <= _MOST_FILES:
                return f"{value[:64]!r} is not a number of files from 1 to {_MOST_FILES}"
        case "mode":
            if value == "non-blocking":
                return f"'non-blocking' is not supported: no output is ever dropped; use '{BLOCKING}', or leave it out"
            if value != BLOCKING:
                return f"{value[:64]!r} is not a mode; use '{BLOCKING}', or leave it out"
        case "max-buffer-size":
            return "belongs to the mode 'non-blocking', which is not supported; leave it out"
        case _:
            return f"{JSON_FILE} has no such option here; it has '{MAX_SIZE}', '{MAX_FILE}' and '{MODE}'"
    return None
