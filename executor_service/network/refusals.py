"""What is said when a network cannot be had, changed or removed."""

from __future__ import annotations

from common.errors import FailedPrecondition

_SHOWN = 64  # characters of an id that may be anything


def refused(network_id: str, why: str, *, reason: str) -> FailedPrecondition:
    return FailedPrecondition(why, resource_type="network", resource_name=network_id, reason=reason)


def no_such_network(network_id: str, *, kind: str = "network") -> FailedPrecondition:
    shown = network_id[:_SHOWN]
    return refused(shown, f"there is no {kind} {shown!r} on this node; create it first", reason="NO_SUCH_NETWORK")
