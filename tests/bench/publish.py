"""Where a run's results go: a JSON file with every sample, and, when asked, the tables of docs/benchmark.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from tests.bench.outcome import Results
from tests.bench.report import rows

RESULTS = Path(__file__).parent / "results"
PUBLISHED = RESULTS / "published.json"
PAGE = Path(__file__).parents[2] / "docs" / "benchmark.md"
BEGIN = "<!-- `python -m tests.bench --publish` writes from here -->"
END = "<!-- to here -->"


def default_output(now: datetime) -> Path:
    return RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"


def to_json(results: Results) -> str:
    """The table's rows, and every sample in the order it was measured: durations in seconds, memory in bytes per
    container, steps of a start in milliseconds."""
    table = [
        {"label": row.label, "unit": row.unit, "own": row.own, "other": row.other, "verdict": row.verdict}
        for row in rows(results)
    ]
    return json.dumps({"rows": table, "run": asdict(results)}, indent=1, default=_plain) + "\n"


def write_results(path: Path, results: Results) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(results))


def with_section(page: str, section: str) -> str:
    """The page with what stands between BEGIN and END replaced; ValueError when it has no such place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the tables: {BEGIN} … {END}")
    return f"{before}{begin}\n\n{section.strip()}\n\n{end}{after}"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    raise TypeError(f"{value!r} cannot be written as JSON")
