"""Options of the root filesystem: its size. Whether the node can hold it to one is found out there."""

from __future__ import annotations

import json
from collections.abc import Mapping

from api_service.validation.sizes import BINARY, parse_size
from common.errors import Violation

SIZE = "size"


def root_size(options: Mapping[str, str]) -> int:
    """Bytes, 0 for any; of valid options."""
    return parse_size(options[SIZE], BINARY) or 0 if SIZE in options else 0


def validate_storage_opt(options: Mapping[str, str], field: str) -> list[Violation]:
    violations: list[Violation] = []
    for name, value in options.items():
        if name != SIZE:
            why = f"there is no such option; there is '{SIZE}'"
        elif parse_size(value, BINARY) is None:
            why = f"{value[:64]!r} is not a size: give a positive number with k, m or g after it, like '10g'"
        else:
            continue
        violations.append(Violation(field=f"{field}[{json.dumps(name)}]", description=why))
    return violations
