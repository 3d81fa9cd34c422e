"""Sizes as Docker writes them (go-units): a number, and k, m, g, t or p after it, with or without `b` or `ib`."""

from __future__ import annotations

import re
from collections.abc import Mapping

# FromHumanSize: 10m is ten million bytes.
DECIMAL: Mapping[str, int] = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
# RAMInBytes: 1m is 1024 times 1024 bytes.
BINARY: Mapping[str, int] = {unit: 1024**power for power, unit in enumerate(DECIMAL)}

_MOST_BYTES = 2**63 - 1
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str, units: Mapping[str, int]) -> int | None:
    """Bytes, at least 1; None when `text` is no size."""
    if (match := _SIZE.fullmatch(text)) is None:
        return None
    unit = units[match[2].lower()]
    size = int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    return size if 1 <= size <= _MOST_BYTES else None
