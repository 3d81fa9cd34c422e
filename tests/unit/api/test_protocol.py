"""Which executors this service goes on with: those that share a version of the protocol."""

from __future__ import annotations

import pytest

from api_service.executor_client.protocol import require_common_protocol
from common.errors import FailedPrecondition
from common.protocol_version import ProtocolRange
from common.version import VERSION


def _range(oldest: int, latest: int) -> ProtocolRange:
    return ProtocolRange(oldest=oldest, latest=latest)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [((1, 1), (1, 1)), ((1, 3), (2, 2)), ((2, 2), (1, 3)), ((1, 2), (2, 3)), ((2, 3), (1, 2))],
)
def test_a_version_in_common(theirs: tuple[int, int], ours: tuple[int, int]) -> None:
    require_common_protocol("n1", version="9", theirs=_range(*theirs), ours=_range(*ours))


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        ((0, 0), (1, 1), f"executor 9 speaks protocol 0, this API service {VERSION} protocol 1; upgrade the executor"),
        ((1, 1), (2, 3), "speaks protocol 1, .* protocol 2 to 3; upgrade the executor"),
        ((3, 4), (1, 2), "speaks protocol 3 to 4, .* protocol 1 to 2; upgrade the API service"),
    ],
)
def test_none_in_common(theirs: tuple[int, int], ours: tuple[int, int], says: str) -> None:
    with pytest.raises(FailedPrecondition, match=says) as caught:
        require_common_protocol("n1", version="9", theirs=_range(*theirs), ours=_range(*ours))
    assert caught.value.reason == "NODE_INCOMPATIBLE"
    assert caught.value.resource_name == "n1"
    assert caught.value.metadata["executor_protocol"] == str(_range(*theirs))
    assert caught.value.metadata["api_protocol"] == str(_range(*ours))
