"""The state for people, in Docker's words."""

from __future__ import annotations

import pytest

from api_service.operations.container_status_text import human_duration

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"), (0.9, "Less than a second"), (1, "1 second"), (1.9, "1 second"), (2, "2 seconds"),
        (59, "59 seconds"), (MINUTE, "About a minute"), (119, "About a minute"), (120, "2 minutes"),
        (46 * MINUTE, "46 minutes"), (59.9 * MINUTE, "59 minutes"), (HOUR, "About an hour"),
        (1.4 * HOUR, "About an hour"), (1.5 * HOUR, "2 hours"), (3 * HOUR, "3 hours"), (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"), (13 * DAY, "13 days"), (14 * DAY, "2 weeks"), (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"), (729 * DAY, "24 months"), (730 * DAY, "2 years"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
