"""Why no node fits: `no node fits: 2 of 3 lack memory (512 MiB asked, 100 MiB and 80 MiB free), 1 is cordoned`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from common.errors import FailedPrecondition, ResourceExhausted, SlipwayError

NO_NODE_FITS = "NO_NODE_FITS"
_MIB = 1024 * 1024
_CPU = 1_000_000_000  # nano CPUs
_MAX_FREE = 5  # amounts shown
_MAX_NODES = 50  # told one by one


Unit = Callable[[int], str]


class Lack(NamedTuple):
    """`what` follows a node's name: `is cordoned`; of several nodes it is said once. `asked` and `free` are amounts in
    that `unit`, `room`: it may be there later. A tuple, for a placement may make a thousand of them and show none."""

    what: str
    unit: Unit | None = None
    asked: int = 0
    free: int = 0
    room: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.shown_asked} asked, {self.shown_free} free)" if self.unit else self.what

    @property
    def shown_asked(self) -> str:
        return self.unit(self.asked) if self.unit is not None else ""

    @property
    def shown_free(self) -> str:
        return self.unit(max(self.free, 0)) if self.unit is not None else ""


def lacks_memory(asked: int, free: int) -> Lack:
    return Lack("lacks memory", _bytes, asked, free, True)


def lacks_processors(asked: int, free: int) -> Lack:
    return Lack("lacks processors", _processors, asked, free, True)


def port_taken(port: str) -> Lack:
    number, _, address = port.partition(" ")
    return Lack(f"has port {number}{f' of {address}' if address else ''} taken", room=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`lacks` by the node's name."""

    lacks: Mapping[str, Lack]

    def error(self, subject: str) -> SlipwayError:
        """`subject`: what was to be placed. When some node lacks nothing but room, it may fit later."""
        message = f"{subject}: {self}"
        told = {f"node.{name}": str(lack) for name, lack in list(self.lacks.items())[:_MAX_NODES]}
        if any(lack.room for lack in self.lacks.values()):
            return ResourceExhausted(message, reason=NO_NODE_FITS, metadata=told)
        return FailedPrecondition(message, resource_type="node", reason=NO_NODE_FITS, metadata=told)

    def __str__(self) -> str:
        if not self.lacks:
            return "there is no node; add one with NodeService.AddNode"
        groups: dict[tuple[str, str], list[Lack]] = {}
        for lack in self.lacks.values():
            groups.setdefault((lack.what, lack.shown_asked), []).append(lack)
        ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].what))
        parts = [_told(group) for group in ordered]
        count, rest = parts[0].split(" ", 1)
        return "no node fits: " + ", ".join([f"{count} of {len(self.lacks)} {rest}", *parts[1:]])


def _told(group: Sequence[Lack]) -> str:
    first = group[0]
    text = f"{len(group)} {first.what if len(group) == 1 else _plural(first.what)}"
    if first.unit is None:
        return text
    amounts = [lack.shown_free for lack in group[:_MAX_FREE]]
    free = amounts[0] if len(amounts) == 1 else f"{', '.join(amounts[:-1])} and {amounts[-1]}"
    return f"{text} ({first.shown_asked} asked, {free}{' and so on' if len(group) > _MAX_FREE else ''} free)"


def _plural(what: str) -> str:
    verb, _, rest = what.partition(" ")
    return f"{ {'is': 'are', 'has': 'have', 'lacks': 'lack'}[verb] } {rest}"


def _processors(amount: int) -> str:
    return f"{amount / _CPU:g}"


def _bytes(amount: int) -> str:
    return f"{amount // _MIB} MiB" if amount >= _MIB else f"{amount} bytes"
