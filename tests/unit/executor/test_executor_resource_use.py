from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import FailedPrecondition
from common.sqlite import Database
from executor_service.host_seams import SCHEMA
from executor_service.journal import Journal
from executor_service.records import ContainerRecords
from executor_service.resource_use import ResourceUse, images_of
from tests.fixtures.fake_host.specs import IMAGE_ID, container_id, container_spec


async def test_an_image_is_kept_from_its_first_use_to_its_last(tmp_path: Path) -> None:
    async with Database(tmp_path / "state.db", schema=SCHEMA) as database:
        journal = Journal(database)
        await journal.load()
        records = ContainerRecords(database, journal)
        use = ResourceUse(records, "image", images_of)
        with use.wanted([IMAGE_ID]), pytest.raises(FailedPrecondition, match="being created"), use.removal(IMAGE_ID):
            pass
        with use.removal(IMAGE_ID), pytest.raises(FailedPrecondition, match="being removed"), use.wanted([IMAGE_ID]):
            pass
        for number in (1, 2):
            await records.insert(container_spec(number))
        with pytest.raises(FailedPrecondition, match=f"{container_id(1)}' and 1 more"), use.removal(IMAGE_ID):
            pass
        for number in (1, 2):
            await records.delete(container_id(number))
        with use.removal(IMAGE_ID):
            pass
