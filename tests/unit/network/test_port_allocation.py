"""Which port a container gets: conflicts across addresses, choices kept and given up, sockets of others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from common.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from executor_service.network import port_rules
from executor_service.network.port_allocation import Allocation, ListeningSocket, Targets
from executor_service.network.port_leases import Lease, Leases
from executor_service.ports import PortProtocol, PublishedPort

BOTH = Targets(ipv4="10.0.0.2", ipv6="fd00::2")


def asked(
    number: int = 0, last: int = 0, *, ip: str = "", to: int = 80, protocol: PortProtocol = PortProtocol.TCP
) -> PublishedPort:
    return PublishedPort(
        host_ip=ip, host_port=number, host_port_last=last or number, container_port=to, protocol=protocol
    )


def udp(number: int) -> PublishedPort:
    return asked(number, protocol=PortProtocol.UDP)


def lease(number: int, ip: str = "0.0.0.0", *, owner: str = "other", chosen: bool = False, runs: bool = True) -> Lease:
    return Lease(
        container_id=owner,
        protocol=PortProtocol.TCP,
        host_ip=ip,
        host_port=number,
        container_port=80,
        chosen=chosen,
        target="10.0.0.9" if runs else "",
    )


def socket_on(address: str, port: int, *, dual: bool = False) -> ListeningSocket:
    return ListeningSocket(protocol=PortProtocol.TCP, address=address, port=port, dual=dual, inode=7)


def allocation(
    *leases: Lease, sockets: Sequence[ListeningSocket] = (), targets: Targets = BOTH, free: Sequence[int] = (500, 501)
) -> Allocation:
    return Allocation(
        container_id="me",
        targets=targets,
        leases=Leases(leases),
        sockets=lambda: sockets,
        candidates=free,
        process=lambda inode: (str(inode), "nginx"),
    )


def places(given: Sequence[Lease]) -> list[tuple[str, int]]:
    return [(one.host_ip, one.host_port) for one in given]


def test_without_an_address_both_families_get_the_same_port() -> None:
    assert places(allocation().give([asked(80), asked()])) == [
        ("0.0.0.0", 80),
        ("::", 80),
        ("0.0.0.0", 500),
        ("::", 500),
    ]


@pytest.mark.parametrize(
    ("held", "wanted"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", ""), ("::", "2001:db8::1"), ("::", "")],
)
def test_addresses_of_one_family_exclude_each_other(held: str, wanted: str) -> None:
    with pytest.raises(AlreadyExists, match="port is already allocated by container 'other'") as taken:
        allocation(lease(80, held)).give([asked(80, ip=wanted)])
    assert (taken.value.reason, taken.value.owner) == ("PORT_ALLOCATED", "other")


@pytest.mark.parametrize(("held", "wanted"), [("0.0.0.0", "::"), ("127.0.0.1", "127.0.0.2"), ("::", "127.0.0.1")])
def test_others_do_not(held: str, wanted: str) -> None:
    assert places(allocation(lease(80, held)).give([asked(80, ip=wanted)])) == [(wanted, 80)]


@pytest.mark.parametrize(
    ("listening", "wanted"),
    [(socket_on("0.0.0.0", 80), "127.0.0.1"), (socket_on("::", 80, dual=True), "127.0.0.1"), (socket_on("::", 80), "")],
)
def test_a_process_that_listens_is_named(listening: ListeningSocket, wanted: str) -> None:
    with pytest.raises(AlreadyExists, match=r"by process 7 \(nginx\)"):
        allocation(sockets=[listening]).give([asked(80, ip=wanted)])


def test_a_range_gives_the_first_free_and_says_when_there_is_none() -> None:
    assert places(allocation(lease(80)).give([asked(80, 81, ip="0.0.0.0")])) == [("0.0.0.0", 81)]
    with pytest.raises(AlreadyExists, match="80-81/tcp failed: all ports are already allocated"):
        allocation(lease(80), lease(81)).give([asked(80, 81)])


def test_what_is_kept_comes_first_and_gives_way_to_whom_nothing_else_serves() -> None:
    own = [lease(77, ip, owner="me", chosen=True, runs=False) for ip in ("0.0.0.0", "::")]
    assert places(allocation(*own).give([asked()])) == [("0.0.0.0", 77), ("::", 77)]
    idle = lease(80, chosen=True, runs=False)
    patient = allocation(idle)
    assert places(patient.give([asked(80, 81, ip="0.0.0.0")])) == [("0.0.0.0", 81)]
    assert patient.evicted() == []
    urgent = allocation(idle)
    urgent.give([asked(80)])
    assert urgent.evicted() == [idle]
    assert places(allocation(lease(500, chosen=True, runs=False)).give([asked(ip="0.0.0.0")])) == [("0.0.0.0", 501)]


def test_shortages() -> None:
    with pytest.raises(ResourceExhausted, match="ip_local_port_range"):
        allocation(lease(500), lease(501)).give([asked()])
    with pytest.raises(FailedPrecondition, match="no addresses of that family"):
        allocation(targets=Targets(ipv4="10.0.0.2", ipv6="")).give([asked(80, ip="::")])
    ipv4 = Targets(ipv4="10.0.0.2", ipv6="")
    assert [one.target for one in allocation(targets=ipv4).give([asked(80, ip="::1")])] == ["10.0.0.2"]
    only_ipv4 = allocation(targets=Targets(ipv4="10.0.0.2", ipv6=""))
    assert places(only_ipv4.give([asked(80)])) == [("0.0.0.0", 80)]


def test_rules_have_one_element_for_each_lease_that_leads_somewhere() -> None:
    leases = [
        *allocation().give(
            [asked(80), asked(81, ip="127.0.0.1"), asked(82, ip="2001:db8::1"), asked(83, ip="::1"), udp(84)]
        ),
        lease(1, runs=False),
    ]
    assert port_rules.add("t", leases).splitlines() == [
        "add element inet t ports4 { tcp . 80 : 10.0.0.2 . 80, udp . 84 : 10.0.0.2 . 80 }",
        "add element inet t ports6_loopback { 80, 83 }",
        "add element inet t ports6 { tcp . 80 : fd00::2 . 80, udp . 84 : fd00::2 . 80 }",
        "add element inet t ports4_loopback { 127.0.0.1 . tcp . 81 : 10.0.0.2 . 80 }",
        "add element inet t ports6_at { 2001:db8::1 . tcp . 82 : fd00::2 . 80 }",
    ]
    assert port_rules.remove("t", leases[:1]) == "delete element inet t ports4 { tcp . 80 }\n"
