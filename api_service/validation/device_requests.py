"""Devices that vendors describe on the node. Source: the Container Device Interface, SPEC.md, on names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from api_service.records.resources import DeviceRequest
from common.errors import Violation

CDI = "cdi"

_WORD = "[A-Za-z](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?"
_DEVICE = re.compile(f"{_WORD}/{_WORD}=[A-Za-z0-9](?:[A-Za-z0-9_.:-]{{0,254}}[A-Za-z0-9])?")


def validate_device_requests(requests: Sequence[DeviceRequest], field: str) -> list[Violation]:
    """Whether the node has them is found out there."""
    violations: list[Violation] = []
    seen: set[str] = set()
    for index, request in enumerate(requests):
        path = f"{field}[{index}]"
        if request.driver != CDI:
            why = f"there is no driver {request.driver[:64]!r}; use '{CDI}', with names like 'nvidia.com/gpu=all'"
            violations.append(Violation(field=f"{path}.driver", description=why))
        if not request.device_ids:
            why = "must name at least one device, as 'vendor.com/class=name'"
            violations.append(Violation(field=f"{path}.device_ids", description=why))
        for position, name in enumerate(request.device_ids):
            if not _DEVICE.fullmatch(name):
                why = f"{name[:80]!r} is not the full name of a device, 'vendor.com/class=name'"
            elif name in seen:
                why = f"{name[:80]!r} is asked for twice; leave one of them out"
            else:
                seen.add(name)
                continue
            violations.append(Violation(field=f"{path}.device_ids[{position}]", description=why))
    return violations
