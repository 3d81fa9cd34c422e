"""Placement: a pure function of what a container demands and of the nodes there are.

Filters leave the nodes that can take it, the score takes the best of them: the one with the fewest containers, or with
`pack` the fullest. The same input gives the same node, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from api_service.placement.constraints import Constraint
from api_service.placement.refusal import Lack, Refusal, lacks_memory, lacks_processors, port_taken
from api_service.records.node import Availability, NodeRecord, NodeState
from api_service.records.node_usage import Booking, NodeUsage

_CPU = 1_000_000_000  # nano CPUs


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


class Candidate(NamedTuple):
    """`containers`: how many are there, of every state. A tuple, for a thousand are made for one placement."""

    record: NodeRecord
    usage: NodeUsage = NodeUsage()
    containers: int = 0


def place(demand: Demand, candidates: Sequence[Candidate]) -> str | Refusal:
    """The name of the node, or why none of them fits."""
    lacks: dict[str, Lack] = {}
    fitting: list[Candidate] = []
    for candidate in candidates:
        if (lack := lack_of(demand, candidate)) is None:
            fitting.append(candidate)
        else:
            lacks[candidate.record.name] = lack
    if not fitting:
        return Refusal(lacks=lacks)
    return min(fitting, key=_packed if demand.pack else _spread).record.name


def lack_of(demand: Demand, candidate: Candidate) -> Lack | None:
    """The first thing for which the node cannot take it; what nobody can help comes before what room is missing."""
    node = candidate.record
    return (
        _unwilling(node)
        or _wrong_place(demand, node)
        or _wrong_kind(demand, node)
        or lack_of_room(demand.booking, candidate)
    )


def lack_of_room(booking: Booking, candidate: Candidate) -> Lack | None:
    """Of memory, processors or ports."""
    if not booking:
        return None
    said, used = candidate.record.description, candidate.usage
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


def _unwilling(node: NodeRecord) -> Lack | None:
    if node.availability is not Availability.ACTIVE:
        return Lack(f"is {node.availability.value}")
    if node.removing:
        return Lack("is being removed")
    if node.status.state is not NodeState.READY:
        return Lack(f"is {node.status.state.value}")
    return None


def _wrong_place(demand: Demand, node: NodeRecord) -> Lack | None:
    if demand.only is not None and demand.only[0] != node.name:
        return Lack(f"is not where {demand.only[1]}")
    for constraint in demand.constraints:
        if not constraint.holds(node):
            return Lack(f"is not {constraint}")
    return None


def _wrong_kind(demand: Demand, node: NodeRecord) -> Lack | None:
    said = node.description
    if (demand.os and said.os != demand.os) or (demand.architecture and said.architecture != demand.architecture):
        return Lack(f"is not for {'/'.join(filter(None, (demand.os, demand.architecture)))}")
    if demand.runtime and demand.runtime not in said.runtimes:
        return Lack(f"has not the runtime {demand.runtime!r}")
    if demand.holders is not None and node.name not in demand.holders:
        return Lack("has not the image")
    return None


def _spread(candidate: Candidate) -> tuple[float, float, str]:
    return candidate.containers, _taken(candidate), candidate.record.name


def _packed(candidate: Candidate) -> tuple[float, float, str]:
    return -_taken(candidate), -candidate.containers, candidate.record.name


def _taken(candidate: Candidate) -> float:
    """The fuller of memory and processors, 0 to 1."""
    said, used = candidate.record.description, candidate.usage
    return max(used.memory / max(said.memory, 1), used.nano_cpus / max(said.cpus * _CPU, 1))


def _collide(one: str, other: str) -> bool:
    (port, address), (other_port, other_address) = one.split(" "), other.split(" ")
    if port != other_port:
        return False
    if not address or not other_address:
        return True
    first, second = ip_address(address), ip_address(other_address)
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)
