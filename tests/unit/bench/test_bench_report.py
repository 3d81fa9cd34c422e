"""What the report says of given samples: figures, verdicts, and that nothing is left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.bench.measure import STEPS, Plan, Samples
from tests.bench.memory import MemoryGrowth
from tests.bench.outcome import EngineResult, Results
from tests.bench.publish import BEGIN, END, to_json, with_section
from tests.bench.report import MET, NOT_COMPARED, NOT_MET, Row, render, rows, table

_MIB = 2**20


def _engine(
    *,
    create: float = 0.01,
    start: float = 0.02,
    burst: float = 1.0,
    memory: float = _MIB,
    exec_: float = 0.01,
    loaded: float = 0.0259,
    tail: float = 0.009,
    stats: float = 0.049,
) -> EngineResult:
    """Seconds and bytes; every sample the same."""
    taken = {"create": create, "start": start, "kill": 0.002, "remove": 0.003, "echo": 0.001}
    taken |= {"exec": exec_, "loaded start": loaded, "tail": tail}
    return EngineResult(
        facts={"version": "1"},
        samples=Samples(
            containers=["c1", "c2"],
            steps={step: [taken[step]] * 2 for step in STEPS},
            stats=[stats],
            bursts=[burst] * 3,
            memory=[MemoryGrowth(containers=64, per_container=memory, by_program={"monitor": memory})],
        ),
        start_steps=[{"mount": 0.5, "total": 15.0}, {"mount": 0.7, "total": 16.0}],
    )


def _results(own: EngineResult | None, other: EngineResult | None) -> Results:
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Results(time=time, plan=Plan(), machine={"kernel": "6.1"}, own=own, other=other)


def _verdicts(own: EngineResult | None, other: EngineResult | None) -> dict[str, str]:
    return {row.label: row.verdict for row in rows(_results(own, other)) if row.aim is not None}


_CREATE, _START, _EXEC, _LOADED, _TAIL, _STATS, _BURST, _MEMORY = (
    "create, p50",
    "start, p50",
    "exec of `true`, p50",
    "that, as a multiple of a plain start, p50",
    "the last 1000 log lines, p50",
    "statistics of 100 containers",
    "64 starts, 16 at a time",
    "memory per idle container",
)


_OTHER = _engine(create=0.01, start=0.12, exec_=0.03, burst=5.0, memory=3 * _MIB)
_ABSOLUTE = {_LOADED, _TAIL, _STATS}


def test_every_aim_is_met_at_its_edge() -> None:
    labels = [_CREATE, _START, _EXEC, _LOADED, _TAIL, _STATS, _BURST, _MEMORY]
    assert _verdicts(_engine(), _OTHER) == dict.fromkeys(labels, MET)


@pytest.mark.parametrize(
    ("own", "label"),
    [
        (_engine(create=0.011), _CREATE),
        (_engine(start=0.021), _START),
        (_engine(exec_=0.011), _EXEC),
        (_engine(loaded=0.027), _LOADED),
        (_engine(tail=0.010), _TAIL),
        (_engine(stats=0.05), _STATS),
        (_engine(burst=1.01), _BURST),
        (_engine(memory=1.01 * _MIB), _MEMORY),
    ],
)
def test_a_figure_that_falls_short_is_called_so_and_alone(own: EngineResult, label: str) -> None:
    verdicts = _verdicts(own, _OTHER)
    assert verdicts.pop(label) == NOT_MET
    assert set(verdicts.values()) == {MET}


def test_a_start_of_thirty_milliseconds_falls_short_however_slow_the_other_is() -> None:
    assert _verdicts(_engine(start=0.030), _engine(start=1.0))[_START] == NOT_MET


def test_alone_only_absolute_limits_are_judged() -> None:
    verdicts = _verdicts(_engine(), None)
    assert {label for label, verdict in verdicts.items() if verdict == MET} == _ABSOLUTE
    assert set(verdicts.values()) == {MET, NOT_COMPARED}
    assert _verdicts(_engine(start=0.031), None)[_START] == NOT_MET


def test_the_other_engine_alone_is_not_judged() -> None:
    assert set(_verdicts(None, _engine()).values()) == {""}


def test_memory_is_the_round_that_took_most() -> None:
    own = _engine()
    own.samples.memory.append(MemoryGrowth(containers=64, per_container=2 * _MIB, by_program={"monitor": 2.0 * _MIB}))
    found = {row.label: row.own for row in rows(_results(own, None))}
    assert found[_MEMORY] == 2


def test_figures_show_their_unit_and_as_many_digits_as_mean_something() -> None:
    cells = Row(label="start", unit="ms", own=123.456, other=9.8765).cells
    assert cells[:4] == ("start", "123.5 ms", "9.88 ms", "12.50")
    assert Row(label="burst", unit="s", own=12.345, other=None).cells[:4] == ("burst", "12.35 s", "", "")


def test_a_table_lines_up() -> None:
    assert table(("", "a"), [("long label", "1"), ("b", "10.00")]) == (
        "|            |     a |\n"
        "|------------|------:|\n"
        "| long label |     1 |\n"
        "| b          | 10.00 |"
    )  # fmt: skip


def test_the_report_holds_the_failing_row_the_steps_and_the_client_s_own_time() -> None:
    text = render(_results(_engine(start=0.5), _engine()))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert any(line.startswith("| start, p50 | 500.0 ms |") and line.endswith("NOT MET |") for line in lines)
    assert "| mount | 0.50 ms | 0.70 ms | 2 |" in lines
    assert "| the whole call, at the client | 500.0 ms | 500.0 ms | 2 |" in lines
    assert "- machine: time 2026-01-02 03:04 UTC; kernel 6.1" in lines


def test_a_step_that_only_some_starts_had_is_counted() -> None:
    own = _engine()
    steps = [{"mount": 0.5}, {"mount": 0.7, "ports": 2.0}]
    text = render(_results(EngineResult(facts={}, samples=own.samples, start_steps=steps), None))
    assert "| ports | 2.00 ms | 2.00 ms | 1 |" in [" ".join(line.split()) for line in text.splitlines()]


def test_json_keeps_every_sample() -> None:
    written = json.loads(to_json(_results(_engine(), None)))
    assert written["run"]["time"] == "2026-01-02T03:04:05+00:00"
    assert written["run"]["own"]["samples"]["steps"]["start"] == [0.02, 0.02]
    assert written["run"]["other"] is None
    assert {row["label"] for row in written["rows"]} >= {_CREATE, _START, _BURST, _MEMORY}


def test_the_page_keeps_what_stands_around_the_tables() -> None:
    page = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert with_section(page, "new\n") == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"


@pytest.mark.parametrize("page", ["no place", f"{BEGIN} only", f"{END} only"])
def test_a_page_without_a_place_for_the_tables_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        with_section(page, "new")
