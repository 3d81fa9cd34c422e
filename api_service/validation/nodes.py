"""Where a node's executor may be, and how many labels it may have."""

from __future__ import annotations

from collections.abc import Mapping

from common.addresses import check_address
from common.errors import Violation

_MAX_LABELS = 100


def validate_node_address(address: str, field: str) -> list[Violation]:
    try:
        check_address(address)
    except ValueError as error:
        return [Violation(field=field, description=str(error))]
    return []


def validate_node_labels(labels: Mapping[str, str], field: str) -> list[Violation]:
    """All that it would have, after a request that adds some."""
    if len(labels) > _MAX_LABELS:
        why = f"the node would have {len(labels)} labels, and {_MAX_LABELS} is the most; remove some"
        return [Violation(field=field, description=why)]
    return []
