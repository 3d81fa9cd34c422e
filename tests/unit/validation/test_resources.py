"""Limits: every rule with its sentence, what a node cannot do, the defaults."""

from __future__ import annotations

from typing import Any

import pytest

from api_service.operations.node_resources import node_resources
from api_service.records.resources import DeviceNumber, Resources
from api_service.validation.cgroup_parent import validate_cgroup_parent
from api_service.validation.cpuset import parse_cpuset, validate_cpuset
from api_service.validation.host_facts import CGROUP_FEATURES, HostFacts
from api_service.validation.resources import fit_resources, validate_oom_score_adj, validate_resources

MIB = 1024 * 1024
FACTS = HostFacts(runtimes=("crun",), cpuset_cpus="0-3", cpuset_mems="0", cpus=4)


def facts_without(*features: str) -> HostFacts:
    return HostFacts(runtimes=("crun",), cgroup_features=CGROUP_FEATURES - set(features), cpus=4)


def broken(facts: HostFacts = FACTS, current: Resources | None = None, **fields: Any) -> dict[str, str]:
    found = validate_resources(Resources(**fields), facts, "r", current=current)
    return {violation.field: violation.description for violation in found}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"memory": 6 * MIB},
        {"memory": 64 * MIB, "memory_swap": 64 * MIB, "memory_reservation": 64 * MIB},
        {"memory": 64 * MIB, "memory_swap": -1},
        {"memory_swap": -1},
        {"memory_swappiness": 0},
        {"memory_swappiness": 100},
        {"memory_swappiness": -1},
        {"cpu_shares": 2},
        {"cpu_shares": 262_144},
        {"nano_cpus": 10_000_000},
        {"nano_cpus": 4_000_000_000},
        {"nano_cpus": 1_000_000_000, "cpu_quota": -1},
        {"cpu_period": 1000, "cpu_quota": 1000},
        {"cpu_period": 1_000_000, "cpu_quota": -1},
        {"cpuset_cpus": "0-2,3", "cpuset_mems": "0"},
        {"pids_limit": 0},
        {"pids_limit": -1},
        {"pids_limit": 1},
        {"blkio_weight": 10},
        {"blkio_weight": 1000},
        {"blkio_device_read_bps": (DeviceNumber(path="/dev/a", value=1), DeviceNumber(path="/dev/b", value=1))},
    ],
)
def test_what_is_allowed(fields: dict[str, Any]) -> None:
    assert broken(**fields) == {}


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"memory": 6 * MIB - 1}, "r.memory", "below the minimum of 6291456 (6 MiB)"),
        ({"memory": -1}, "r.memory", "below the minimum"),
        ({"memory_reservation": 4 * MIB}, "r.memory_reservation", "below the minimum of 6291456 (6 MiB)"),
        ({"memory": 8 * MIB, "memory_reservation": 9 * MIB}, "r.memory_reservation", "is more than memory"),
        ({"memory": 8 * MIB, "memory_swap": 7 * MIB}, "r.memory_swap", "is less than memory alone"),
        ({"memory_swap": 64 * MIB}, "r.memory_swap", "needs memory"),
        ({"memory_swap": -2}, "r.memory_swap", "-2 is negative"),
        ({"memory_swappiness": 101}, "r.memory_swappiness", "give 0 to 100"),
        ({"memory_swappiness": -2}, "r.memory_swappiness", "give 0 to 100"),
        ({"cpu_shares": 1}, "r.cpu_shares", "give 2 to 262144"),
        ({"cpu_shares": -5}, "r.cpu_shares", "give 2 to 262144"),
        ({"cpu_shares": 262_145}, "r.cpu_shares", "give 2 to 262144"),
        ({"cpu_period": 999}, "r.cpu_period", "give 1000 (1 ms) to 1000000 (1 s)"),
        ({"cpu_period": 1_000_001}, "r.cpu_period", "give 1000 (1 ms) to 1000000 (1 s)"),
        ({"cpu_period": -1}, "r.cpu_period", "give 1000 (1 ms)"),
        ({"cpu_quota": 999}, "r.cpu_quota", "at least 1000 (1 ms)"),
        ({"nano_cpus": 1_000_000_000, "cpu_period": 5000}, "r.nano_cpus", "conflicts with cpu_period"),
        ({"nano_cpus": 1_000_000_000, "cpu_quota": 5000}, "r.nano_cpus", "conflicts with cpu_quota"),
        ({"nano_cpus": 4_000_000_001}, "r.nano_cpus", "the range is 0.01 to 4.00, for the node has 4 processors"),
        ({"nano_cpus": 9_999_999}, "r.nano_cpus", "the range is 0.01 to 4.00"),
        ({"nano_cpus": -1}, "r.nano_cpus", "the range is 0.01 to 4.00"),
        ({"cpuset_cpus": "x"}, "r.cpuset_cpus", "is no list of numbers and ranges, as 0-2,5"),
        ({"cpuset_cpus": "2-1"}, "r.cpuset_cpus", "is no list"),
        ({"cpuset_cpus": "0\n"}, "r.cpuset_cpus", "is no list"),
        ({"cpuset_cpus": "0,5-6"}, "r.cpuset_cpus", "asks for 5, 6, which the node does not have; available are 0-3"),
        ({"cpuset_mems": "1"}, "r.cpuset_mems", "available are 0"),
        ({"pids_limit": -2}, "r.pids_limit", "-1 or 0 for no limit"),
        ({"blkio_weight": 9}, "r.blkio_weight", "give 10 to 1000"),
        ({"blkio_weight": 1001}, "r.blkio_weight", "give 10 to 1000"),
        (
            {"blkio_device_write_iops": (DeviceNumber(path="/dev/a", value=1),) * 2},
            "r.blkio_device_write_iops[1].path",
            "is there twice",
        ),
    ],
)
def test_what_is_not(fields: dict[str, Any], field: str, sentence: str) -> None:
    found = broken(**fields)
    assert list(found) == [field]
    assert sentence in found[field]


def test_all_at_once() -> None:
    assert list(broken(memory=1, cpu_quota=1, cpuset_cpus="9", blkio_weight=1)) == [
        "r.memory",
        "r.cpu_quota",
        "r.blkio_weight",
        "r.cpuset_cpus",
    ]


def test_processors_as_a_fraction_need_bandwidth_control() -> None:
    found = broken(facts_without("cpu_cfs"), nano_cpus=1_000_000_000)
    assert "no CFS bandwidth control" in found["r.nano_cpus"]


@pytest.mark.parametrize(
    ("current", "merged", "field", "sentence"),
    [
        (
            {"nano_cpus": 1_000_000_000},
            {"nano_cpus": 1_000_000_000, "cpu_quota": 5000},
            "r.cpu_quota",
            "conflicts with nano_cpus, 1000000000, which the container has",
        ),
        (
            {"cpu_period": 5000},
            {"cpu_period": 5000, "nano_cpus": 1_000_000_000},
            "r.nano_cpus",
            "conflicts with cpu_period, 5000, which the container has",
        ),
        (
            {"memory": 64 * MIB, "memory_swap": 128 * MIB},
            {"memory": 200 * MIB, "memory_swap": 128 * MIB},
            "r.memory",
            "give memory_swap too",
        ),
        (
            {"memory": 64 * MIB, "memory_swap": 128 * MIB},
            {"memory": 200 * MIB, "memory_swap": 190 * MIB},
            "r.memory_swap",
            "is less than memory alone",
        ),
    ],
)
def test_rules_of_an_update(current: dict[str, Any], merged: dict[str, Any], field: str, sentence: str) -> None:
    found = broken(current=Resources(**current), **merged)
    assert list(found) == [field]
    assert sentence in found[field]


def test_an_update_may_limit_swap_alone() -> None:
    assert broken(current=Resources(), memory_swap=64 * MIB) == {}


@pytest.mark.parametrize(
    ("fields", "missing", "nothing"),
    [
        ({"memory": 64 * MIB}, "memory", Resources()),
        ({"memory": 64 * MIB, "memory_swap": 70 * MIB}, "memory", Resources()),
        ({"memory_reservation": 64 * MIB}, "memory", Resources()),
        ({"memory": 64 * MIB}, "memory_swap", Resources(memory=64 * MIB, memory_swap=-1)),
        ({"memory_swappiness": 10}, "memory_swappiness", Resources()),
        ({"cpu_shares": 10}, "cpu_shares", Resources()),
        ({"cpu_period": 1000}, "cpu_cfs", Resources()),
        ({"cpu_quota": 1000}, "cpu_cfs", Resources()),
        ({"cpuset_cpus": "0"}, "cpuset", Resources()),
        ({"cpuset_mems": "0"}, "cpuset", Resources()),
        ({"pids_limit": 10}, "pids", Resources()),
        ({"blkio_weight": 10}, "blkio_weight", Resources()),
        ({"blkio_weight_device": (DeviceNumber(path="/dev/a", value=10),)}, "blkio_weight", Resources()),
        ({"blkio_device_read_bps": (DeviceNumber(path="/dev/a", value=10),)}, "blkio_throttle", Resources()),
        ({"blkio_device_write_bps": (DeviceNumber(path="/dev/a", value=10),)}, "blkio_throttle", Resources()),
        ({"blkio_device_read_iops": (DeviceNumber(path="/dev/a", value=10),)}, "blkio_throttle", Resources()),
        ({"blkio_device_write_iops": (DeviceNumber(path="/dev/a", value=10),)}, "blkio_throttle", Resources()),
    ],
)
def test_what_the_node_cannot_do_is_dropped_with_a_warning(
    fields: dict[str, Any], missing: str, nothing: Resources
) -> None:
    fitted = fit_resources(Resources(**fields), facts_without(missing), "r")
    assert fitted.resources == nothing
    assert len(fitted.warnings) == 1
    assert "The node's kernel cannot" in fitted.warnings[0]
    assert f"r.{next(iter(fields))}" in fitted.warnings[0]


def test_no_limit_needs_nothing_of_the_node() -> None:
    fitted = fit_resources(Resources(cpu_quota=-1, pids_limit=-1), facts_without(*CGROUP_FEATURES), "r")
    assert fitted.warnings == ()


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"memory": 64 * MIB}, {"memory": 64 * MIB, "memory_swap": 128 * MIB}),
        ({"memory": 64 * MIB, "memory_swap": -1}, {"memory": 64 * MIB, "memory_swap": -1}),
        ({"pids_limit": 0}, {}),
        ({"pids_limit": -1}, {}),
        ({"memory_swappiness": -1}, {}),
        ({"memory_swappiness": 0}, {"memory_swappiness": 0}),
        ({"cpu_quota": -500}, {"cpu_quota": -1}),
        ({"cpuset_cpus": "0, 1"}, {"cpuset_cpus": "0,1"}),
        ({"nano_cpus": 1_500_000_000}, {"nano_cpus": 1_500_000_000}),
    ],
)
def test_defaults(asked: dict[str, Any], kept: dict[str, Any]) -> None:
    assert fit_resources(Resources(**asked), FACTS, "r").resources == Resources(**kept)


def test_processors_become_time_in_a_period() -> None:
    assert node_resources(Resources(nano_cpus=1_500_000_000)) == Resources(cpu_period=100_000, cpu_quota=150_000)
    assert node_resources(Resources(cpu_quota=5)) == Resources(cpu_quota=5)


@pytest.mark.parametrize(("text", "numbers"), [("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("1,1", {1}), ("0, 2", {0, 2})])
def test_cpuset(text: str, numbers: set[int]) -> None:
    assert parse_cpuset(text) == frozenset(numbers)
    assert validate_cpuset(text, "", "f") == []


@pytest.mark.parametrize(
    "text", ["", ",", "0,", "-1", "0-", "1-0", "a", "0x1", "0\n", "100000", "٣", "1-2," * 1_000_000]
)
def test_no_cpuset(text: str) -> None:
    assert parse_cpuset(text) is None


@pytest.mark.parametrize("score", [-1000, 0, 1000])
def test_oom_score(score: int) -> None:
    assert validate_oom_score_adj(score, "f") == []


@pytest.mark.parametrize("score", [-1001, 1001])
def test_no_oom_score(score: int) -> None:
    (violation,) = validate_oom_score_adj(score, "host_config.oom_score_adj")
    assert "give -1000 (never) to 1000 (first)" in violation.description


@pytest.mark.parametrize("parent", ["", "/a", "/tenants/blue-1/x.slice", "/_x"])
def test_cgroup_parent(parent: str) -> None:
    assert validate_cgroup_parent(parent, "f") == []


@pytest.mark.parametrize(
    "parent", ["a", "/", "/a/", "//a", "/a/../b", "/..", "/.", "/a/.", "/a b", "/a\n", "/" + "x" * 1024, "/" + "a" * 64]
)
def test_no_cgroup_parent(parent: str) -> None:
    (violation,) = validate_cgroup_parent(parent, "host_config.cgroup_parent")
    assert violation.field == "host_config.cgroup_parent"
