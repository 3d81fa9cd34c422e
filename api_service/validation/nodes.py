"""Where a node's executor may be."""

from __future__ import annotations

from common.addresses import check_address
from common.errors import Violation


def validate_node_address(address: str, field: str) -> list[Violation]:
    try:
        check_address(address)
    except ValueError as error:
        return [Violation(field=field, description=str(error))]
    return []
