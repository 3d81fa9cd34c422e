"""An executor's words for a part of the specification, in those of the request it was made of."""

from __future__ import annotations

import re

from api_service.records.container import ContainerRecord
from common.errors import InvalidArgument, Violation

_MOUNT = re.compile(r"spec\.mounts\[([0-9]{1,5})\](\.[a-z_]+)?")


def as_asked(error: InvalidArgument, record: ContainerRecord) -> InvalidArgument:
    """The same error, with the fields of the request."""
    if not error.violations:
        return InvalidArgument(named_as_asked(error.message, record), reason=error.reason, metadata=error.metadata)
    violations = [
        Violation(field=named_as_asked(each.field, record), description=named_as_asked(each.description, record))
        for each in error.violations
    ]
    return InvalidArgument(violations=violations, reason=error.reason, metadata=error.metadata)


def named_as_asked(text: str, record: ContainerRecord) -> str:
    """`spec.mounts[3].source` becomes what asked for the fourth mount, `host_config.binds[0]`."""

    def asked(found: re.Match[str]) -> str:
        index = int(found[1])
        if index >= len(record.mount_points) or not (field := record.mount_points[index].field):
            return found[0]
        # Only a mount of `host_config.mounts` has parts that the request can name, and some of them elsewhere.
        return field + (found[2] if found[2] in (".source", ".target") and ".mounts[" in field else "")

    return _MOUNT.sub(asked, text)
