from __future__ import annotations

import pytest

from tests.bench.memory import MemoryReading, Program, growth, parse_pss

_ROLLUP = """\
55d0c0a00000-7ffd5f3fe000 ---p 00000000 00:00 0                          [rollup]
Rss:                2140 kB
Pss:                 355 kB
Pss_Dirty:           212 kB
Pss_Anon:            200 kB
"""


def test_pss_is_the_total_and_not_one_of_its_parts() -> None:
    assert parse_pss(_ROLLUP) == 355 * 1024


def test_a_rollup_without_pss_is_refused() -> None:
    with pytest.raises(ValueError, match="Pss"):
        parse_pss("Rss: 1 kB\n")


def test_growth_counts_new_monitors_and_grown_daemons() -> None:
    before = MemoryReading(programs={"daemon": Program(count=1, pss=1000)})
    after = MemoryReading(programs={"daemon": Program(count=1, pss=1400), "monitor": Program(count=4, pss=800)})
    grown = growth(before, after, containers=4)
    assert grown.per_container == 300
    assert grown.by_program == {"daemon": 100, "monitor": 200}


def test_growth_counts_what_shrank_or_went_as_less() -> None:
    before = MemoryReading(programs={"daemon": Program(count=1, pss=1000), "idle": Program(count=1, pss=100)})
    after = MemoryReading(programs={"daemon": Program(count=1, pss=900)})
    grown = growth(before, after, containers=2)
    assert grown.per_container == -100
    assert grown.by_program == {"daemon": -50, "idle": -50}
