"""Placement: filters, scores, ties, and what a refusal says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from api_service.placement.constraints import parse_constraint, validate_constraints
from api_service.placement.place import Demand, booked_ports, place
from api_service.placement.refusal import NO_NODE_FITS, Lack, Refusal
from api_service.records.node import Availability, NodeRecord, NodeState
from api_service.records.node_usage import Booking, NodeUsage
from common.errors import FailedPrecondition, ResourceExhausted
from tests.fixtures.nodes import GIB, node_record

MIB = 1024 * 1024
CPU = 1_000_000_000


class Candidate(NamedTuple):
    record: NodeRecord
    usage: NodeUsage
    containers: int


def candidate(name: str, *, containers: int = 0, usage: NodeUsage | None = None, **record: object) -> Candidate:
    return Candidate(node_record(name, **record), usage or NodeUsage(), containers)  # type: ignore[arg-type]


def place_among(demand: Demand, candidates: Sequence[Candidate]) -> str | Refusal:
    usages = {each.record.name: each.usage for each in candidates}
    counts = {each.record.name: each.containers for each in candidates}
    return place(demand, [each.record for each in candidates], usages, counts)


def lack_of(demand: Demand, one: Candidate) -> Lack | None:
    placed = place_among(demand, [one])
    return placed.lacks[one.record.name] if isinstance(placed, Refusal) else None


def refusal(demand: Demand, *candidates: Candidate) -> Refusal:
    refused = place_among(demand, candidates)
    assert isinstance(refused, Refusal)
    return refused


def test_spread_takes_the_fewest_containers_then_the_least_reserved_then_the_name() -> None:
    a, b = candidate("a", containers=2), candidate("b", containers=1)
    assert place_among(Demand(), [a, b]) == "b"
    fuller = candidate("a", containers=1, usage=NodeUsage(memory=GIB))
    assert place_among(Demand(), [fuller, b]) == "b"
    assert place_among(Demand(), [candidate("y"), candidate("x")]) == "x"


def test_pack_takes_the_fullest() -> None:
    empty, full = candidate("a"), candidate("b", usage=NodeUsage(memory=4 * GIB))
    assert place_among(Demand(pack=True), [empty, full]) == "b"
    too_full = candidate("c", usage=NodeUsage(memory=8 * GIB))
    assert place_among(Demand(pack=True, booking=Booking(memory=1)), [empty, full, too_full]) == "b"


def test_the_refusal_explains_itself() -> None:
    found = refusal(
        Demand(booking=Booking(memory=512 * MIB)),
        candidate("a", usage=NodeUsage(memory=8 * GIB - 100 * MIB)),
        candidate("b", usage=NodeUsage(memory=8 * GIB - 80 * MIB)),
        candidate("c", availability=Availability.CORDONED),
    )
    assert str(found) == ("no node fits: 2 of 3 lack memory (512 MiB asked, 100 MiB and 80 MiB free), 1 is cordoned")
    error = found.error("container 'web'")
    assert isinstance(error, ResourceExhausted)
    assert (error.reason, error.metadata["node.c"]) == (NO_NODE_FITS, "is cordoned")
    assert error.metadata["node.a"] == "lacks memory (512 MiB asked, 100 MiB free)"


def test_a_refusal_tells_the_first_thing_that_a_node_lacks() -> None:
    demand = Demand(
        booking=Booking(memory=9 * GIB),
        constraints=(parse_constraint("node.labels.zone==a"),),
        runtime="runc",
        only=("a", "volume 'data' is"),
    )
    found = refusal(
        demand,
        candidate("a", labels={"zone": "a"}),
        candidate("b", availability=Availability.CORDONED),
        candidate("c", labels={"zone": "a"}),
    )
    assert {name: lack.what for name, lack in found.lacks.items()} == {
        "a": "lacks memory",
        "b": "is cordoned",
        "c": "is not where volume 'data' is",
    }


def test_what_no_waiting_helps_against_is_a_precondition() -> None:
    error = refusal(Demand(architecture="arm64", os="linux"), candidate("a"), candidate("b")).error("container 'web'")
    assert isinstance(error, FailedPrecondition)
    assert error.message == "container 'web': no node fits: 2 of 2 are not for linux/arm64"
    assert "add one" in str(refusal(Demand()))


@pytest.mark.parametrize(
    ("demand", "record", "lack"),
    [
        (Demand(), {"availability": Availability.DRAINED}, "is drained"),
        (Demand(), {"removing": True}, "is being removed"),
        (Demand(), {"state": NodeState.UNREACHABLE}, "is unreachable"),
        (Demand(), {"state": NodeState.LOST}, "is lost"),
        (Demand(runtime="kata"), {}, "has not the runtime 'kata'"),
        (Demand(holders=frozenset({"b"})), {}, "has not the image"),
        (Demand(only=("b", "volume 'data' is")), {}, "is not where volume 'data' is"),
        (Demand(constraints=(parse_constraint("node.labels.zone==a"),)), {}, "is not node.labels.zone==a"),
        (
            Demand(booking=Booking(nano_cpus=5 * CPU)),
            {},
            "lacks processors (5 asked, 4 free)",
        ),
        (Demand(os="linux", architecture="amd64", runtime="runc", holders=frozenset({"a"})), {}, "None"),
    ],
)
def test_filters(demand: Demand, record: dict[str, object], lack: str) -> None:
    assert str(lack_of(demand, candidate("a", **record))) == lack  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "taken", "fits"),
    [
        ((80, "tcp", ""), (80, "tcp", ""), False),
        ((80, "tcp", ""), (80, "udp", ""), True),
        ((80, "tcp", ""), (81, "tcp", ""), True),
        ((80, "tcp", "10.0.0.1"), (80, "tcp", ""), False),
        ((80, "tcp", "10.0.0.1"), (80, "tcp", "10.0.0.2"), True),
        ((80, "tcp", "10.0.0.1"), (80, "tcp", "0.0.0.0"), False),
        ((80, "tcp", "::1"), (80, "tcp", "0.0.0.0"), True),
    ],
)
def test_ports(asked: tuple[int, str, str], taken: tuple[int, str, str], fits: bool) -> None:
    node = candidate("a", usage=NodeUsage(ports=booked_ports([taken])))
    lack = lack_of(Demand(booking=Booking(ports=booked_ports([asked]))), node)
    assert (lack is None) == fits


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("node.labels.zone==a", True),
        ("node.labels.zone == A", True),
        ("node.labels.zone!=b", True),
        ("node.labels.zone!=a", False),
        ("node.labels.other!=a", True),
        ("node.labels.other==a", False),
        ("node.name==n1", True),
        ("node.platform.os==linux", True),
        ("node.platform.arch!=amd64", False),
        ("node.hostname==", None),
        ("node.labels.==a", None),
        ("node.role==manager", None),
        ("zone==a", None),
        ("node.name=n1", None),
    ],
)
def test_constraints(text: str, holds: bool | None) -> None:
    broken = validate_constraints([text], "host_config.placement.constraints")
    if holds is None:
        assert [each.field for each in broken] == ["host_config.placement.constraints[0]"]
    else:
        assert broken == []
        assert parse_constraint(text).holds(node_record("n1", labels={"zone": "a"})) == holds


def test_whatever_is_asked_the_chosen_node_fits_and_no_better_one_was_passed_over() -> None:
    dice = random.Random(7)
    for _ in range(2000):
        candidates = [_random_candidate(dice, f"n{index}") for index in range(dice.randrange(8))]
        demand = _random_demand(dice)
        chosen = place_among(demand, candidates)
        assert chosen == place_among(demand, dice.sample(candidates, len(candidates)))
        fitting = [each for each in candidates if lack_of(demand, each) is None]
        if isinstance(chosen, Refusal):
            assert not fitting
            assert set(chosen.lacks) == {each.record.name for each in candidates}
            continue
        taken = next(each for each in fitting if each.record.name == chosen)
        booked = taken.usage.plus(demand.booking)
        assert booked.memory <= taken.record.description.memory
        assert booked.nano_cpus <= taken.record.description.cpus * CPU
        if demand.pack:
            assert _fullness(taken) == max(map(_fullness, fitting))
        else:
            assert taken.containers == min(each.containers for each in fitting)


def test_a_booking_comes_and_goes_without_a_trace() -> None:
    dice = random.Random(3)
    usage = NodeUsage()
    bookings: list[Booking] = []
    for _ in range(500):
        if bookings and dice.random() < 0.5:
            usage = usage.minus(bookings.pop(dice.randrange(len(bookings))))
        else:
            bookings.append(
                Booking(memory=dice.randrange(9), nano_cpus=dice.randrange(9), ports=(f"{dice.randrange(3)}/tcp ",))
            )
            usage = usage.plus(bookings[-1])
        assert usage.memory == sum(each.memory for each in bookings)
        assert usage.nano_cpus == sum(each.nano_cpus for each in bookings)
        assert sorted(usage.ports) == sorted(port for each in bookings for port in each.ports)


def _fullness(one: Candidate) -> float:
    said = one.record.description
    return max(one.usage.memory / said.memory, one.usage.nano_cpus / (said.cpus * CPU))


def _random_candidate(dice: random.Random, name: str) -> Candidate:
    return candidate(
        name,
        containers=dice.randrange(4),
        usage=NodeUsage(memory=dice.randrange(9 * GIB), nano_cpus=dice.randrange(5 * CPU), ports=_ports(dice)),
        availability=dice.choice([*Availability, Availability.ACTIVE]),
        state=dice.choice([NodeState.READY, NodeState.READY, NodeState.UNREACHABLE]),
        labels={"zone": dice.choice("ab")},
    )


def _random_demand(dice: random.Random) -> Demand:
    zone = parse_constraint(f"node.labels.zone{dice.choice(['==', '!='])}a")
    return Demand(
        booking=Booking(memory=dice.randrange(GIB), nano_cpus=dice.randrange(CPU), ports=_ports(dice)),
        constraints=(zone,) if dice.random() < 0.3 else (),
        pack=dice.random() < 0.5,
    )


def _ports(dice: random.Random) -> tuple[str, ...]:
    wanted: Sequence[tuple[int, str, str]] = [(dice.randrange(80, 84), "tcp", "") for _ in range(dice.randrange(3))]
    return booked_ports(wanted)
