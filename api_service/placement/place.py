"""Placement: a pure function of what a container demands and of the nodes there are.

Filters leave the nodes that can take it, the score takes the best of them: the one with the fewest containers, or with
`pack` the fullest. The same input gives the same node, whoever asks. There may be a thousand nodes: only what a demand
asks for is looked at, a filter sees what those before it have left, and a score the ties of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import ip_address

from api_service.placement.constraints import Constraint
from api_service.placement.refusal import Lack, Refusal, lacks_memory, lacks_processors, port_taken
from api_service.records.node import Availability, NodeRecord, NodeState
from api_service.records.node_usage import Booking, NodeUsage

_CPU = 1_000_000_000  # nano CPUs
_UNUSED = NodeUsage()
_ACTIVE, _READY = Availability.ACTIVE, NodeState.READY

_Filter = Callable[[NodeRecord], Lack | None]
_Score = Callable[[NodeRecord], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """`architecture` and `runtime` may be empty. `holders`: the nodes that have the image; None: any can get it.
    `only`: the one node where it can be, with the reason why; `pack`: rather fill nodes than spread over them."""

    booking: Booking = field(default_factory=Booking)
    constraints: tuple[Constraint, ...] = ()
    os: str = ""
    architecture: str = ""
    runtime: str = ""
    holders: Set[str] | None = None
    only: tuple[str, str] | None = None
    pack: bool = False


def place(
    demand: Demand, nodes: Iterable[NodeRecord], usages: Mapping[str, NodeUsage], counts: Mapping[str, int]
) -> str | Refusal:
    """The name of the node, or why none of them fits. By node: what is booked of it, and how many containers of every
    state are there; what is not among them has nothing."""
    lacks: dict[str, Lack] = {}
    fitting = list(nodes)
    for lack_of in _filters(demand, usages):
        asked, fitting = fitting, []
        for node in asked:
            if (lack := lack_of(node)) is None:
                fitting.append(node)
            else:
                lacks[node.name] = lack
    if not fitting:
        return Refusal(lacks=lacks)

    def taken(node: NodeRecord) -> float:
        return _taken(node, usages.get(node.name, _UNUSED))

    if demand.pack:
        return _least(fitting, lambda node: -taken(node), lambda node: -counts.get(node.name, 0))
    return _least(fitting, lambda node: counts.get(node.name, 0), taken)


def unwilling(node: NodeRecord) -> Lack | None:
    """Why it gets no containers at all."""
    if node.availability is not _ACTIVE:
        return Lack(f"is {node.availability.value}")
    if node.removing:
        return Lack("is being removed")
    if node.status.state is not _READY:
        return Lack(f"is {node.status.state.value}")
    return None


def lack_of_room(booking: Booking, node: NodeRecord, used: NodeUsage) -> Lack | None:
    """Of memory, processors or ports."""
    said = node.description
    free = said.memory - used.memory
    if booking.memory > free:
        return lacks_memory(booking.memory, free)
    free = said.cpus * _CPU - used.nano_cpus
    if booking.nano_cpus > free:
        return lacks_processors(booking.nano_cpus, free)
    for port in booking.ports:
        if any(_collide(port, other) for other in used.ports):
            return port_taken(port)
    return None


def booked_ports(ports: Iterable[tuple[int, str, str]]) -> tuple[str, ...]:
    """Of `(port, protocol, address)`."""
    return tuple(f"{port}/{protocol} {address}" for port, protocol, address in ports)


def _filters(demand: Demand, usages: Mapping[str, NodeUsage]) -> Iterator[_Filter]:
    """What the demand makes necessary to look at; what nobody can help comes before what room is missing."""
    yield unwilling
    if demand.only is not None:
        name, why = demand.only
        yield _unless(lambda node: node.name == name, f"is not where {why}")
    for constraint in demand.constraints:
        yield _unless(constraint.holds, f"is not {constraint}")
    if demand.os or demand.architecture:
        yield _unless(
            lambda node: (
                demand.os in ("", node.description.os) and demand.architecture in ("", node.description.architecture)
            ),
            f"is not for {'/'.join(filter(None, (demand.os, demand.architecture)))}",
        )
    if demand.runtime:
        yield _unless(
            lambda node: demand.runtime in node.description.runtimes, f"has not the runtime {demand.runtime!r}"
        )
    if (holders := demand.holders) is not None:
        yield _unless(lambda node: node.name in holders, "has not the image")
    if demand.booking:
        yield lambda node: lack_of_room(demand.booking, node, usages.get(node.name, _UNUSED))


def _unless(holds: Callable[[NodeRecord], bool], what: str) -> _Filter:
    lack = Lack(what)
    return lambda node: None if holds(node) else lack


def _least(nodes: Sequence[NodeRecord], *scores: _Score) -> str:
    """Of the nodes with the least first score those with the least second one, and so on; then by name."""
    for score in scores:
        scored = [(score(node), node) for node in nodes]
        least = min(value for value, _ in scored)
        nodes = [node for value, node in scored if value == least]
    return min(node.name for node in nodes)


def _taken(node: NodeRecord, used: NodeUsage) -> float:
    """The fuller of memory and processors, 0 to 1."""
    said = node.description
    memory, processors = used.memory / (said.memory or 1), used.nano_cpus / (said.cpus * _CPU or 1)
    return memory if memory > processors else processors


def _collide(one: str, other: str) -> bool:
    (port, address), (other_port, other_address) = one.split(" "), other.split(" ")
    if port != other_port:
        return False
    if not address or not other_address:
        return True
    first, second = ip_address(address), ip_address(other_address)
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)
