"""Whether an executor speaks a version of the protocol that this service speaks as well."""

from __future__ import annotations

from common.errors import FailedPrecondition
from common.protocol_version import NODE_INCOMPATIBLE, OURS, ProtocolRange
from common.version import VERSION


def require_common_protocol(node: str, *, version: str, theirs: ProtocolRange, ours: ProtocolRange = OURS) -> None:
    """`version`: the executor's own. Raises FailedPrecondition (reason `NODE_INCOMPATIBLE`)."""
    if not theirs.meets(ours):
        raise incompatible(node, version=version, theirs=theirs, ours=ours)


def incompatible(node: str, *, version: str, theirs: ProtocolRange, ours: ProtocolRange = OURS) -> FailedPrecondition:
    older = "executor" if theirs.latest < ours.oldest else "API service"
    return FailedPrecondition(
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
