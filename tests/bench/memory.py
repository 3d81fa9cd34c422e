"""Memory of an engine's processes in bytes of PSS: private pages whole, shared pages divided by those who share them.

Source: proc(5), /proc/pid/smaps_rollup. Kernel memory (namespaces, cgroups, mounts) is in nobody's PSS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """All processes of one name: how many they are and their PSS in bytes."""

    count: int = 0
    pss: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """The engine's processes at one moment, by program name."""

    programs: Mapping[str, Program] = field(default_factory=dict)

    @property
    def pss(self) -> int:
        return sum(program.pss for program in self.programs.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGrowth:
    """What `containers` idle containers added, in bytes of PSS for each of them: in all, and by program name."""

    containers: int
    per_container: float
    by_program: Mapping[str, float]


def read_memory(pids: Iterable[int]) -> MemoryReading:
    """Read these processes; one that ends meanwhile counts as not there."""
    programs: dict[str, Program] = {}
    for pid in pids:
        try:
            pss = parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text())
            name = processes.name_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        known = programs.get(name, Program())
        programs[name] = Program(count=known.count + 1, pss=known.pss + pss)
    return MemoryReading(programs=programs)


def growth(before: MemoryReading, after: MemoryReading, *, containers: int) -> MemoryGrowth:
    """Both monitors that were not there before and daemons that grew are part of the difference."""
    names = sorted({*before.programs, *after.programs})
    grown = {name: _pss(after, name) - _pss(before, name) for name in names}
    return MemoryGrowth(
        containers=containers,
        per_container=(after.pss - before.pss) / containers,
        by_program={name: size / containers for name, size in grown.items() if size},
    )


def status_size(pid: int, name: str) -> int:
    """Bytes of a field of proc_pid_status(5), `VmRSS` for instance."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0]) << 10


def parse_pss(text: str) -> int:
    """Bytes of PSS in the text of a smaps_rollup; ValueError when it names none."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("smaps_rollup without a Pss line")


def _pss(reading: MemoryReading, name: str) -> int:
    return reading.programs.get(name, Program()).pss
