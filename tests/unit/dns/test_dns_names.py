"""Who is called what, for whom, and from when to when."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from executor_service.dns.names import TTL, Names, Registration
from executor_service.dns.wire import (
    TYPE_A,
    TYPE_AAAA,
    TYPE_ANY,
    TYPE_PTR,
    address_record,
    encode_name,
    is_single_label,
    pointer_record,
)

MX = 15


def container(owner: str, *names: str, network: str = "n1", addresses: tuple[str, ...] = ("10.0.0.1",)) -> Registration:
    return Registration(
        network_id=network, network_name=f"{network}-net", container_id=owner, names=names, addresses=addresses
    )


def wire_name(text: str) -> bytes:
    name = encode_name(text)
    assert name is not None
    return name


def find(names: Names, text: str, kind: int = TYPE_A, *, networks: tuple[str, ...] = ("n1",)) -> list[bytes] | None:
    return names.find(networks, wire_name(text), kind)


def address(text: str) -> bytes:
    return address_record(ip_address(text), ttl=TTL)


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.mark.parametrize("name", ["web", "WEB", "front", "0123456789ab", "web.n1-net", "front.N1-net"])
def test_every_name_answers_whatever_its_case_and_with_the_network(names: Names, name: str) -> None:
    names.register(container("c1", "Web", "front", "0123456789ab", addresses=("10.0.0.1", "fd00::1")))
    assert find(names, name) == [address("10.0.0.1")]
    assert find(names, name, TYPE_AAAA) == [address("fd00::1")]
    assert sorted(find(names, name, TYPE_ANY) or []) == [address("10.0.0.1"), address("fd00::1")]


@pytest.mark.parametrize("kind", [TYPE_AAAA, TYPE_PTR, MX, 64, 65])
def test_a_kind_that_a_known_name_does_not_have_is_empty_not_unknown(names: Names, kind: int) -> None:
    names.register(container("c1", "web"))
    assert find(names, "web", kind) == []
    assert find(names, "wob", kind) is None


def test_addresses_have_the_first_name_with_the_network(names: Names) -> None:
    names.register(container("c1", "web", "front", addresses=("10.0.0.1", "fd00::1")))
    pointer = pointer_record(wire_name("web.n1-net"), ttl=TTL)
    for text in ("10.0.0.1", "fd00::1"):
        assert find(names, ip_address(text).reverse_pointer, TYPE_PTR) == [pointer]
        assert find(names, ip_address(text).reverse_pointer, MX) == []
    assert find(names, ip_address("10.0.0.2").reverse_pointer, TYPE_PTR) is None


def test_a_shared_alias_gives_all_of_them_each_first_now_and_then(names: Names) -> None:
    for number in range(3):
        names.register(container(f"c{number}", f"w{number}", "web", addresses=(f"10.0.0.{number + 1}",)))
    answers = [find(names, "web") for _ in range(200)]
    everyone = sorted(address(f"10.0.0.{number}") for number in (1, 2, 3))
    assert all(answer is not None and sorted(answer) == everyone for answer in answers)
    assert {answer[0] for answer in answers if answer} == set(everyone)


def test_a_network_sees_its_own_and_several_see_each(names: Names) -> None:
    names.register(container("c1", "web", addresses=("10.0.1.1",)))
    names.register(container("c2", "web", network="n2", addresses=("10.0.2.1",)))
    names.register(container("c2", "db", network="n2", addresses=("10.0.2.1",)))
    assert find(names, "db") is None
    assert find(names, "db.n2-net") is None
    assert find(names, ip_address("10.0.2.1").reverse_pointer, TYPE_PTR) is None
    assert find(names, "db", networks=("n1", "n2")) == [address("10.0.2.1")]
    names.register(container("c3", "web", network="n2", addresses=("10.0.2.2",)))
    assert sorted(find(names, "web", networks=("n1", "n2")) or []) == [address("10.0.1.1"), address("10.0.2.2")]
    assert find(names, "web.n2-net", networks=("n1", "n2")) == [address("10.0.2.2")]
    assert find(names, "web", networks=()) is None


def test_a_rename_is_the_new_name_and_not_the_old_one(names: Names) -> None:
    names.register(container("c1", "old", "alias"))
    names.register(container("c1", "new", "alias"))
    assert find(names, "old") is None
    assert find(names, "old.n1-net") is None
    assert find(names, "new") == find(names, "alias") == [address("10.0.0.1")]
    pointer = pointer_record(wire_name("new.n1-net"), ttl=TTL)
    assert find(names, ip_address("10.0.0.1").reverse_pointer, TYPE_PTR) == [pointer]


def test_what_is_withdrawn_leaves_nothing_and_takes_nobody_along(names: Names) -> None:
    names.register(container("c1", "web", "shared"))
    names.register(container("c2", "shared", addresses=("10.0.0.2",)))
    names.withdraw("n1", "c1")
    names.withdraw("n1", "c1")
    names.withdraw("n9", "c1")
    assert find(names, "web") is None
    assert find(names, "shared") == [address("10.0.0.2")]
    names.withdraw("n1", "c2")
    assert find(names, "shared") is None
    assert names._zones == {}


def test_a_name_that_dns_cannot_carry_does_not_hide_the_others(names: Names) -> None:
    names.register(container("c1", "x" * 64, "web", addresses=("10.0.0.1",)))
    assert find(names, "web") == [address("10.0.0.1")]
    assert find(names, ip_address("10.0.0.1").reverse_pointer, TYPE_PTR) is None


def test_names_with_dots_are_not_single_labels() -> None:
    assert is_single_label(wire_name("web"))
    assert not is_single_label(wire_name("web.net"))
    assert not is_single_label(b"\0")
