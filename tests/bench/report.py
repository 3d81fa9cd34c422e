"""The report: one row a figure, the aim beside it, and whether it was reached. Nothing measured is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.engine import MOUNTS
from tests.bench.measure import Samples
from tests.bench.memory import MemoryGrowth
from tests.bench.outcome import EngineResult, Results
from tests.bench.statistics import percentile

MET = "met"
NOT_MET = "NOT MET"
NOT_COMPARED = "not compared"
_OWN = "slipway"
_OTHER = "dockerd"
_LABELS = {
    "create": "create",
    "start": "start",
    "kill": "kill until exit known",
    "remove": "remove",
    "loaded start": f"start with {MOUNTS} mounts and every limit",
    "exec": "exec of `true`",
    "echo": "echo through attach",
}
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a figure should be: at most `share` of the other engine's, and below `limit`."""

    text: str
    share: float = float("inf")
    limit: float = float("inf")

    def verdict(self, own: float, other: float | None) -> str:
        if own >= self.limit:
            return NOT_MET
        if self.share == float("inf"):
            return MET
        if other is None:
            return NOT_COMPARED
        return MET if own <= other * self.share else NOT_MET


_AIMS = {
    "create p50": Aim(text="no slower", share=1),
    "start p50": Aim(text="under 1/6 and 30 ms", share=1 / 6, limit=30),
    "exec p50": Aim(text="under 1/3", share=1 / 3),
    "tail": Aim(text="a few ms", limit=10),
    "loaded": Aim(text="under 1.3 of a plain one", limit=1.3),
    "stats": Aim(text="under 5% of a core", limit=5),
    "burst": Aim(text="within 1/5", share=1 / 5),
    "memory": Aim(text="under 1/3", share=1 / 3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of both engines, in `unit`; less is better in every row. None: the engine was not measured."""

    label: str
    unit: str
    own: float | None
    other: float | None
    aim: Aim | None = None

    @property
    def verdict(self) -> str:
        """Empty when no aim was set for the figure."""
        if self.aim is None or self.own is None:
            return ""
        return self.aim.verdict(self.own, self.other)

    @property
    def cells(self) -> tuple[str, ...]:
        ratio = f"{self.own / self.other:.2f}" if self.own is not None and self.other else ""
        aim = "" if self.aim is None else self.aim.text
        return (self.label, _figure(self.own, self.unit), _figure(self.other, self.unit), ratio, aim, self.verdict)


def rows(results: Results) -> list[Row]:
    """Milliseconds for one container, seconds for many at once, MiB for memory."""

    def row(label: str, unit: str, figure: Callable[[Samples], float], aim: str) -> Row:
        own, other = (None if one is None else figure(one.samples) for one in (results.own, results.other))
        return Row(label=label, unit=unit, own=own, other=other, aim=_AIMS.get(aim))

    plan = results.plan
    return [
        *(
            row(f"{label}, p{percent}", "ms", _milliseconds(step, percent), f"{step} p{percent}")
            for step, label in _LABELS.items()
            for percent in (50, 99)
        ),
        row("that, as a multiple of a plain start, p50", "x", _loaded_share, "loaded"),
        row(f"the last {plan.tail_lines} log lines, p50", "ms", _milliseconds("tail", 50), "tail"),
        row(f"statistics of {plan.stats_containers} containers", "% of a core", _stats_share, "stats"),
        row(f"{plan.containers} starts, {plan.width} at a time", "s", lambda one: percentile(one.bursts, 50), "burst"),
        row("memory per idle container", "MiB", lambda one: _largest(one).per_container / _MIB, "memory"),
    ]


def render(results: Results) -> str:
    """The whole report in Markdown that also reads well in a terminal."""
    facts = {"machine": {"time": f"{results.time:%Y-%m-%d %H:%M} UTC", **results.machine}}
    for name, one in ((_OWN, results.own), (_OTHER, results.other)):
        if one is not None:
            facts[name] = dict(one.facts)
    heading = ("", _OWN, _OTHER, "ratio", "aim", "")
    parts = [_facts(facts), table(heading, [row.cells for row in rows(results)])]
    if results.own is not None and results.own.start_steps:
        parts.append(_breakdown(results.own))
    parts.append(_memory(results))
    return "\n\n".join(parts)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure is about, what was found, and what it should be at most."""

    text: str
    figure: float
    limit: float

    @property
    def verdict(self) -> str:
        return MET if self.figure <= self.limit else NOT_MET


def bounds(found: Iterable[Bound]) -> str:
    body = [(each.text, f"{each.figure:.2f}", f"{each.limit:.2f}", each.verdict) for each in found]
    return table(("aim", "is", "at most", ""), body)


def table(heading: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up in a terminal: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (heading, *body)) for column in range(len(heading))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    return "\n".join([line(heading), rule, *(line(cells) for cells in body)])


def _facts(facts: Mapping[str, Mapping[str, str]]) -> str:
    return "\n".join(
        f"- {name}: " + "; ".join(f"{key} {value}" for key, value in some.items()) for name, some in facts.items()
    )


def _breakdown(own: EngineResult) -> str:
    """Where a start spends its time, as the engine itself logged it, and what the client saw of the same starts."""
    steps = own.start_steps
    body = [
        _spread(name, [one[name] for one in steps if name in one])
        for name in dict.fromkeys(name for one in steps for name in one)
    ]
    body.append(_spread("the whole call, at the client", [call * 1000 for call in own.samples.steps["start"]]))
    return table((f"step of a start ({_OWN})", "p50", "p99", "starts"), body)


def _spread(name: str, milliseconds: Sequence[float]) -> tuple[str, ...]:
    p50, p99 = (_figure(percentile(milliseconds, percent), "ms") for percent in (50, 99))
    return (name, p50, p99, str(len(milliseconds)))


def _memory(results: Results) -> str:
    body = []
    for engine, one in ((_OWN, results.own), (_OTHER, results.other)):
        if one is not None:
            largest = _largest(one.samples)
            by_size = sorted(largest.by_program.items(), key=lambda item: -item[1])
            body += [(f"{engine}: {program}", _figure(size / _MIB, "MiB")) for program, size in by_size]
    return table(("memory by program, per idle container", "PSS"), body)


def _milliseconds(step: str, percent: float) -> Callable[[Samples], float]:
    return lambda samples: percentile(samples.steps[step], percent) * 1000


def _loaded_share(samples: Samples) -> float:
    return percentile(samples.steps["loaded start"], 50) / percentile(samples.steps["start"], 50)


def _stats_share(samples: Samples) -> float:
    return percentile(samples.stats, 50) * 100


def _largest(samples: Samples) -> MemoryGrowth:
    """Of the round that took most: later rounds find the daemons grown already, and that would flatter them."""
    return max(samples.memory, key=lambda growth: growth.per_container)


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.{1 if unit == 'ms' and value >= 10 else 2}f} {unit}"
