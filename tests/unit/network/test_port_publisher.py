"""Leases and rules of published ports, in step: what is not on record can be taken back, and what gave way for it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.errors import AlreadyExists, FailedPrecondition
from common.sqlite import Database
from executor_service.network import conntrack, firewall, port_leases, port_publisher
from executor_service.network.port_allocation import Targets
from executor_service.network.port_publisher import HostPorts
from executor_service.network.publication import Publication
from executor_service.ports import PortProtocol, PublishedPort

TARGETS = Targets(ipv4="10.0.0.2", ipv6="")
MOVED = Targets(ipv4="10.0.0.3", ipv6="")


class Kernel:
    """Our maps, as the commands of one transaction leave them."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}
        self.broken = False

    def run(self, commands: str) -> None:
        rules = dict(self.rules)
        for line in commands.splitlines():
            verb, _, rest = line.partition(" ")
            inside = rest.partition("{ ")[2].rpartition(" }")[0]
            for element in filter(None, inside.split(", ")):
                key, _, value = element.partition(" : ")
                if self.broken or (verb == "add") is (key in rules):
                    raise FailedPrecondition("refused", reason="NFTABLES_REFUSED")
                if verb == "add":
                    rules[key] = value
                else:
                    del rules[key]
            if verb == "flush":
                rules = {}
        self.rules = rules


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(firewall, "run_commands", made.run)
    monkeypatch.setattr(port_publisher, "listening_sockets", lambda protocols: [])
    monkeypatch.setattr(port_publisher, "candidates", lambda: iter((500, 501, 502)))
    monkeypatch.setattr(conntrack, "forget_translated", lambda leases: None)
    monkeypatch.setattr(conntrack, "forget_datagrams_to", lambda leases: None)
    return made


@asynccontextmanager
async def opened(tmp_path: Path, running: Sequence[str] = (), known: Sequence[str] = ()) -> AsyncIterator[HostPorts]:
    async with Database(tmp_path / "state.db", schema=port_leases.SCHEMA) as database:
        ports = HostPorts(table="t", database=database)
        await ports.reconcile(running=running, known={*running, *known})
        yield ports


def asked(number: int = 0, last: int = 0, *, to: int = 80, ip: str = "") -> PublishedPort:
    return PublishedPort(
        host_ip=ip, host_port=number, host_port_last=last or number, container_port=to, protocol=PortProtocol.TCP
    )


def recorded(tmp_path: Path, publication: Publication | None = None) -> list[tuple[str, int, str]]:
    """(container, port of the host, target) of every row; `publication`: after what it writes."""
    connection = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    try:
        if publication is not None:
            publication.write(connection)
            publication.committed()
        return sorted(connection.execute("SELECT container_id, host_port, target FROM port_leases"))
    finally:
        connection.close()


async def publish(
    ports: HostPorts, tmp_path: Path, container: str, *wanted: PublishedPort, targets: Targets = TARGETS
) -> list[int]:
    publication = await ports.publish(container, wanted, targets=targets)
    recorded(tmp_path, publication)
    return [port.host_port for port in publication.bound]


async def test_nothing_is_on_record_before_what_it_is_for(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        publication = await ports.publish("one", [asked(80)], targets=TARGETS)
        assert kernel.rules == {"tcp . 80": "10.0.0.2 . 80"}
        assert recorded(tmp_path) == []
        assert recorded(tmp_path, publication) == [("one", 80, "10.0.0.2")]
        assert not (await ports.publish("one", [asked(80)], targets=TARGETS)).changed


async def test_what_is_taken_back_is_as_it_was(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        await publish(ports, tmp_path, "one", asked(80), asked(81, to=81), asked(to=9))
        rows, rules = recorded(tmp_path), kernel.rules
        for wanted in ([asked(82), asked(81, to=99)], [], [asked(80), asked(83)]):
            await ports.publish("one", wanted, targets=MOVED)
            assert kernel.rules != rules
            await ports.revert("one")
            assert kernel.rules == rules
        await ports.suspend("one")
        assert kernel.rules == {}
        await ports.revert("one")
        assert (kernel.rules, recorded(tmp_path)) == (rules, rows)
        assert not (await ports.publish("one", [asked(80), asked(81, to=81), asked(to=9)], targets=TARGETS)).changed


async def test_what_is_given_up_is_nobodys_else_until_that_is_on_record(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        await publish(ports, tmp_path, "one", asked(80))
        given_up = await ports.publish("one", [asked(81)], targets=TARGETS)
        with pytest.raises(AlreadyExists, match="by container 'one'"):
            await ports.publish("two", [asked(80)], targets=TARGETS)
        recorded(tmp_path, given_up)
        assert await publish(ports, tmp_path, "two", asked(80)) == [80]
        await ports.revert("one")  # nothing is left to be taken back
        assert recorded(tmp_path) == [("one", 81, "10.0.0.2"), ("two", 80, "10.0.0.2")]


async def test_a_chosen_port_comes_back_with_the_containers_port(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        assert await publish(ports, tmp_path, "one", asked(to=80), asked(to=81)) == [500, 501]
        assert await publish(ports, tmp_path, "one", asked(to=81)) == [501]
        assert kernel.rules == {"tcp . 501": "10.0.0.2 . 81"}
        assert await publish(ports, tmp_path, "two", asked(to=80)) == [502]
        assert await publish(ports, tmp_path, "one", asked(to=81), asked(to=80)) == [501, 500]
        await ports.forget("one")
    assert recorded(tmp_path) == [("two", 502, "10.0.0.2")]


async def test_who_gave_way_has_its_port_again_when_that_is_taken_back(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        assert await publish(ports, tmp_path, "idle", asked()) == [500]
        await ports.withdraw("idle")
        before = recorded(tmp_path)
        await ports.publish("urgent", [asked(500)], targets=TARGETS)
        await ports.revert("urgent")
        assert recorded(tmp_path) == before == [("idle", 500, "")]
        assert await publish(ports, tmp_path, "idle", asked()) == [500]


@pytest.mark.parametrize("meanwhile", ["published", "forgotten"])
async def test_who_has_something_else_by_then_has_not(tmp_path: Path, kernel: Kernel, meanwhile: str) -> None:
    async with opened(tmp_path) as ports:
        await publish(ports, tmp_path, "idle", asked())
        await ports.withdraw("idle")
        await ports.publish("urgent", [asked(500)], targets=TARGETS)
        if meanwhile == "published":
            assert await publish(ports, tmp_path, "idle", asked()) == [501]
        else:
            await ports.forget("idle")
        await ports.revert("urgent")
        assert recorded(tmp_path) == ([("idle", 501, "10.0.0.2")] if meanwhile == "published" else [])
        assert await publish(ports, tmp_path, "other", asked(500)) == [500]


async def test_what_the_kernel_refuses_leaves_everything_as_it_was(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        await publish(ports, tmp_path, "idle", asked())
        await ports.withdraw("idle")
        await publish(ports, tmp_path, "one", asked(80))
        rows, rules = recorded(tmp_path), kernel.rules
        kernel.broken = True
        with pytest.raises(FailedPrecondition):
            await ports.publish("one", [asked(500)], targets=TARGETS)
        kernel.broken = False
        assert (recorded(tmp_path), kernel.rules) == (rows, rules)
        assert await publish(ports, tmp_path, "two", asked(500)) == [500]
        assert not (await ports.publish("one", [asked(80)], targets=TARGETS)).changed


async def test_rules_that_somebody_changed_are_made_anew(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        await publish(ports, tmp_path, "one", asked(80))
        unrecorded = await ports.publish("two", [asked(81)], targets=TARGETS)
        kernel.rules = {}
        await publish(ports, tmp_path, "one", asked(82))
        both = {"tcp . 81": "10.0.0.2 . 80", "tcp . 82": "10.0.0.2 . 80"}
        assert kernel.rules == both
        kernel.rules = {}
        await ports.lead_again()
        assert kernel.rules == both
        recorded(tmp_path, unrecorded)


async def test_the_next_executor_keeps_what_is_of_who_runs(tmp_path: Path, kernel: Kernel) -> None:
    async with opened(tmp_path) as ports:
        for name in ("runs", "ended", "removed"):
            await publish(ports, tmp_path, name, asked(), asked(80 + len(name), to=81))
        await ports.publish("runs", [], targets=TARGETS)  # never on record
    kernel.rules |= {"tcp . 500": "10.0.0.2 . 80", "tcp . 84": "10.0.0.2 . 81"}  # made of the leases by whoever starts
    async with opened(tmp_path, running=["runs"], known=["ended"]) as ports:
        assert recorded(tmp_path) == [("ended", 501, ""), ("runs", 84, "10.0.0.2"), ("runs", 500, "10.0.0.2")]
        assert kernel.rules == {"tcp . 500": "10.0.0.2 . 80", "tcp . 84": "10.0.0.2 . 81"}
        moved = await ports.publish("runs", [asked(), asked(84, to=81)], targets=MOVED)
        assert moved.changed
        assert {port.host_port for port in moved.bound} == {500, 84}
