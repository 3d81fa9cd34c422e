"""Whether an executor speaks a version of the protocol that this service speaks as well."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import FailedPrecondition
from common.protocol_version import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from common.version import VERSION

NODE_INCOMPATIBLE = "NODE_INCOMPATIBLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolRange:
    """From the oldest version that is spoken to the latest."""

    oldest: int
    latest: int

    def __str__(self) -> str:
        return str(self.latest) if self.oldest == self.latest else f"{self.oldest} to {self.latest}"

    def meets(self, other: ProtocolRange) -> bool:
        return max(self.oldest, other.oldest) <= min(self.latest, other.latest)


OURS = ProtocolRange(oldest=OLDEST_PROTOCOL_VERSION, latest=PROTOCOL_VERSION)


def require_common_protocol(node: str, *, version: str, theirs: ProtocolRange, ours: ProtocolRange = OURS) -> None:
    """`version`: the executor's own. Raises FailedPrecondition (reason `NODE_INCOMPATIBLE`)."""
    if theirs.meets(ours):
        return
    older = "executor" if theirs.latest < ours.oldest else "API service"
    raise FailedPrecondition(
        f"node {node!r}: its executor {version or '(unknown)'} speaks protocol {theirs}, this API service {VERSION} "
        f"protocol {ours}; upgrade the {older}. Its containers run on meanwhile",
        resource_type="node",
        resource_name=node,
        reason=NODE_INCOMPATIBLE,
        metadata={
            "executor_version": version,
            "executor_protocol": str(theirs),
            "api_version": VERSION,
            "api_protocol": str(ours),
        },
    )
