"""The name server of user-defined networks on the real kernel: asked from inside namespaces, with servers beyond it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import pytest

from common.sqlite import Database
from executor_service.dns import elsewhere, sandbox_server, wire
from executor_service.dns.elsewhere import ContainerElsewhere, StoredNamesElsewhere
from executor_service.dns.forwarding import forward
from executor_service.dns.names import Registration
from executor_service.dns.sandbox_server import Resolving
from executor_service.dns.service import NameServer
from executor_service.network.network import Network
from tests.fixtures.bridge import network_descriptors
from tests.fixtures.name_servers import Answer, Client, cut_short, failing, known, silent, upstream
from tests.fixtures.netns import Namespace, new_namespace

HERE = Resolving(networks=("n1",))
ELSEWHERE = "example.com"


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    """The host's."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.53\n")
    return path


@pytest.fixture
async def server(resolv_conf: Path) -> AsyncIterator[NameServer]:
    before = network_descriptors()
    async with NameServer(resolv_conf=resolv_conf) as server:
        yield server
    assert network_descriptors() == before


@pytest.fixture
def one() -> Iterator[Namespace]:
    with new_namespace() as namespace:
        yield namespace


@pytest.fixture
def two() -> Iterator[Namespace]:
    with new_namespace() as namespace:
        yield namespace


def container(owner: str, *names: str, network: str = "n1", addresses: tuple[str, ...] = ("10.0.0.1",)) -> Registration:
    return Registration(
        network_id=network, network_name=f"{network}-net", container_id=owner, names=names, addresses=addresses
    )


async def test_names_are_answered_over_both_protocols_as_records_change(server: NameServer, one: Namespace) -> None:
    server.register(container("c1", "web", "front", "0123456789ab", addresses=("10.0.0.1", "fd00::1")))
    server.register(container("c2", "front", addresses=("10.0.0.2",)))
    server.register(container("c3", "other", network="n2", addresses=("10.0.3.1",)))
    await server.serve("one", namespace=one.path, resolving=Resolving(networks=("n1",), forward=False))
    client = Client(one)
    for tcp in (False, True):
        assert await client.answers("web", tcp=tcp) == ["10.0.0.1"]
        assert await client.answers("WEB.n1-net", "AAAA", tcp=tcp) == ["fd00::1"]
        assert await client.answers("front", tcp=tcp) == ["10.0.0.1", "10.0.0.2"]
        assert await client.answers("1.0.0.10.in-addr.arpa", "PTR", tcp=tcp) == ["web.n1-net."]
        assert await client.answers("web", "HTTPS", tcp=tcp) == []
        assert await client.answers("other", tcp=tcp) == "SERVFAIL"
        assert await client.answers("other.n2-net", tcp=tcp) == "SERVFAIL"
    server.register(container("c1", "renamed"))
    assert await client.answers("renamed") == ["10.0.0.1"]
    assert await client.answers("web") == "SERVFAIL"
    server.withdraw("n1", "c1")
    assert await client.answers("renamed") == "SERVFAIL"
    # Attached to another network while it runs.
    await server.serve("one", namespace=one.path, resolving=Resolving(networks=("n1", "n2"), forward=False))
    assert await client.answers("other") == ["10.0.3.1"]


async def test_a_question_is_looked_at_once_and_again_when_anything_has_changed(
    server: NameServer, one: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0

    def counted(data: bytes) -> wire.Query:
        nonlocal looked_at
        looked_at += 1
        return wire.parse_query(data)

    monkeypatch.setattr(sandbox_server, "parse_query", counted)
    server.register(container("c1", "web"))
    await server.serve("one", namespace=one.path, resolving=HERE)
    client = Client(one)
    assert [await client.answers("web") for _ in range(3)] == [["10.0.0.1"]] * 3
    assert looked_at == 1
    server.register(container("c2", "web", addresses=("10.0.0.2",)))
    assert await client.answers("web") == ["10.0.0.1", "10.0.0.2"]
    firsts = {str((await client.ask("web")).answer[0][0]) for _ in range(40)}
    assert firsts == {"10.0.0.1", "10.0.0.2"}, "in turn"
    server.withdraw("n1", "c1")
    assert await client.answers("web") == ["10.0.0.2"]
    await server.serve("one", namespace=one.path, resolving=Resolving(networks=("n2",), forward=False))
    assert await client.answers("web") == "SERVFAIL"


async def test_a_large_answer_is_cut_for_datagrams_and_whole_over_tcp(server: NameServer, one: Namespace) -> None:
    for number in range(200):
        server.register(container(f"c{number}", "many", addresses=(f"10.0.1.{number + 1}",)))
    await server.serve("one", namespace=one.path, resolving=HERE)
    client = Client(one)
    small = await client.ask("many")
    assert small.flags & dns.flags.TC and sum(map(len, small.answer)) == 30
    assert not (await client.ask("many", payload=4096)).flags & dns.flags.TC
    assert len(await client.answers("many", tcp=True)) == 200


async def test_a_server_of_the_containers_own_on_port_53_is_left_alone(server: NameServer, one: Namespace) -> None:
    server.register(container("c1", "web"))
    with (
        one.socket(socket.AF_INET, socket.SOCK_DGRAM) as own,
        one.socket(socket.AF_INET, socket.SOCK_STREAM) as listening,
    ):
        own.bind(("0.0.0.0", 53))
        listening.bind(("0.0.0.0", 53))
        await server.serve("one", namespace=one.path, resolving=HERE)
        assert await Client(one).answers("web") == ["10.0.0.1"]
        with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"to the container", ("127.0.0.1", 53))
            assert await asyncio.to_thread(own.recv, 100) == b"to the container"


async def test_another_executor_takes_the_sandbox_over(one: Namespace, resolv_conf: Path) -> None:
    async with NameServer(resolv_conf=resolv_conf) as dead:
        await dead.serve("one", namespace=one.path, resolving=HERE)
        async with NameServer(resolv_conf=resolv_conf) as server:
            server.register(container("c1", "web"))
            await server.serve("one", namespace=one.path, resolving=HERE)
            for tcp in (False, True):
                assert await Client(one).answers("web", tcp=tcp) == ["10.0.0.1"]
    assert one.command("nft", "list", "ruleset").count("table") == 1
    # No connection is tracked for it: that would slow the container, and a full table would lose its packets.
    assert "type nat" not in one.command("nft", "list", "ruleset")


async def test_a_namespace_that_is_gone_is_an_error_and_leaves_nothing(server: NameServer, tmp_path: Path) -> None:
    before = network_descriptors()
    with pytest.raises(OSError):
        await server.serve("gone", namespace=str(tmp_path / "gone"), resolving=HERE)
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        await server.serve("file", namespace=str(tmp_path / "file"), resolving=HERE)
    assert network_descriptors() == before


async def test_other_names_are_asked_of_the_host_s_servers_as_they_are_now(
    server: NameServer, one: Namespace, two: Namespace, resolv_conf: Path
) -> None:
    await server.serve("one", namespace=one.path, resolving=HERE)
    await server.serve("two", namespace=two.path, resolving=Resolving(networks=("n1",), servers=("127.0.0.54",)))
    async with upstream("127.0.0.53", known("192.0.2.1")) as first, upstream("127.0.0.54", known("192.0.2.2")):
        assert await Client(one).answers(ELSEWHERE) == ["192.0.2.1"]
        assert await Client(one).answers("nobody") == ["192.0.2.1"]
        assert await Client(one).answers("7.7.0.10.in-addr.arpa", "A") == ["192.0.2.1"]
        assert len({query.id for query in first.asked}) == len(set(first.ports)) == 3
        assert await Client(two).answers(ELSEWHERE) == ["192.0.2.2"]
        resolv_conf.with_name("new").write_text("nameserver 127.0.0.54\n")
        resolv_conf.with_name("new").rename(resolv_conf)
        async with asyncio.timeout(60):
            while await Client(one).answers(ELSEWHERE) != ["192.0.2.2"]:
                pass


async def test_single_labels_stay_here_when_the_search_list_comes_first(server: NameServer, one: Namespace) -> None:
    resolving = Resolving(networks=("n1",), search_first=True)
    await server.serve("one", namespace=one.path, resolving=resolving)
    async with upstream("127.0.0.53", known("192.0.2.1")) as beyond:
        assert await Client(one).answers("nobody") == []
        assert await Client(one).answers("nobody", "MX") == ["192.0.2.1"]
        assert await Client(one).answers(ELSEWHERE) == ["192.0.2.1"]
        assert len(beyond.asked) == 2


@pytest.mark.parametrize(
    "bad", [silent, failing(dns.rcode.SERVFAIL), failing(dns.rcode.REFUSED), lambda query: b"\0\0nonsense", None]
)
async def test_the_next_server_is_asked_when_one_does_not_know(
    server: NameServer, one: Namespace, resolv_conf: Path, bad: Answer | None
) -> None:
    resolv_conf.write_text("nameserver 127.0.0.53\nnameserver 127.0.0.54\n")
    await server.serve("one", namespace=one.path, resolving=HERE)
    async with AsyncExitStack() as stack:
        if bad is not None:
            await stack.enter_async_context(upstream("127.0.0.53", bad))
        await stack.enter_async_context(upstream("127.0.0.54", known("192.0.2.2")))
        assert await Client(one).answers(ELSEWHERE) == ["192.0.2.2"]


async def test_no_such_name_is_an_answer_and_no_answer_is_a_failure(
    server: NameServer, one: Namespace, resolv_conf: Path
) -> None:
    resolv_conf.write_text("nameserver 127.0.0.53\nnameserver 127.0.0.54\n")
    await server.serve("one", namespace=one.path, resolving=HERE)
    async with upstream("127.0.0.53", failing(dns.rcode.NXDOMAIN)), upstream("127.0.0.54", silent) as second:
        assert await Client(one).answers(ELSEWHERE) == "NXDOMAIN"
        assert second.asked == []
    async with upstream("127.0.0.53", failing(dns.rcode.SERVFAIL)) as first, upstream("127.0.0.54", silent) as second:
        loop = asyncio.get_running_loop()
        outcomes: list[tuple[tuple[int, int], float]] = []
        # Before a stub resolver gives up, which is after five seconds; a machine that is busy for one is asked again.
        while not any(asked == (2, 2) and took < 4.5 for asked, took in outcomes):
            assert len(outcomes) < 5, outcomes
            started, before = loop.time(), (len(first.asked), len(second.asked))
            assert await Client(one).answers(ELSEWHERE) == "SERVFAIL"
            asked = (len(first.asked) - before[0], len(second.asked) - before[1])
            outcomes.append((asked, loop.time() - started))


async def test_what_a_server_cuts_short_is_fetched_whole_over_tcp(server: NameServer, one: Namespace) -> None:
    await server.serve("one", namespace=one.path, resolving=HERE)
    async with upstream("127.0.0.53", cut_short, known("192.0.2.1")):
        assert (await Client(one).ask(ELSEWHERE)).flags & dns.flags.TC
        assert await Client(one).answers(ELSEWHERE, tcp=True) == ["192.0.2.1"]


async def test_a_forged_answer_is_not_taken(server: NameServer, one: Namespace) -> None:
    def forged(query: dns.message.Message) -> bytes:
        answer = known("203.0.113.66")(query)
        assert isinstance(answer, dns.message.Message)
        answer.id ^= 1
        return answer.to_wire()

    await server.serve("one", namespace=one.path, resolving=HERE)
    async with upstream("127.0.0.53", forged):
        assert await Client(one).answers(ELSEWHERE) == "SERVFAIL"


async def test_a_flood_of_one_container_is_refused_and_delays_no_other(
    server: NameServer, one: Namespace, two: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = most = 0

    async def counted(*arguments: Any, **options: Any) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await forward(*arguments, **options)
        finally:
            under_way -= 1

    monkeypatch.setattr(sandbox_server, "forward", counted)
    server.register(container("c1", "web"))
    await server.serve("one", namespace=one.path, resolving=HERE)
    await server.serve("two", namespace=two.path, resolving=HERE)
    garbage = [b"", b"\0", os.urandom(40), os.urandom(4000), bytes(12), b"\0" * 4 + b"\xff" * 60]
    query = dns.message.make_query(ELSEWHERE, "A").to_wire()
    async with upstream("127.0.0.53", silent):
        with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
            noisy.connect(("127.0.0.11", 53))
            noisy.setblocking(False)
            refused = number = 0
            async with asyncio.timeout(60):
                while number < 400 or not refused:
                    noisy.send((number % 0x10000).to_bytes(2, "big") + query[2:])
                    noisy.send(garbage[number % len(garbage)])
                    number += 1
                    if number % 40 == 0:
                        # Several turns of the loop: as much as the sandbox may forward is under way soon.
                        assert await Client(two).answers("web") == ["10.0.0.1"]
                        with suppress(BlockingIOError):
                            while True:
                                refused += noisy.recv(100)[3] & 0xF == dns.rcode.REFUSED
        assert most == 100
        async with asyncio.timeout(60):
            while True:
                with suppress(dns.exception.Timeout):  # what is left of the flood may leave no room for a question
                    assert await Client(one).answers("web", timeout=1) == ["10.0.0.1"]
                    break
        await server.stop("one")  # with a hundred of them under way


async def test_connections_are_few_and_one_that_talks_nonsense_ends(server: NameServer, one: Namespace) -> None:
    server.register(container("c1", "web"))
    await server.serve("one", namespace=one.path, resolving=HERE)

    def ends(data: bytes) -> bytes:
        with one.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect(("127.0.0.11", 53))
            sock.send(data)
            sock.shutdown(socket.SHUT_WR)
            try:
                return sock.recv(100)
            except ConnectionResetError:
                return b""

    assert await asyncio.to_thread(ends, b"\0\0") == b""
    assert await asyncio.to_thread(ends, b"\xff\xffabc") == b""
    assert (await asyncio.to_thread(ends, b"\0\x0c" + bytes(12)))[5] & 0xF == dns.rcode.FORMERR
    query = dns.message.make_query("web", "A").to_wire()
    framed = len(query).to_bytes(2, "big") + query
    idle = [one.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(17)]
    try:
        for sock in idle:
            sock.connect(("127.0.0.11", 53))
        idle[0].send(framed * 3)
        answer = b""
        while answer.count(b"\x03web") < 3:
            answer += await asyncio.to_thread(idle[0].recv, 1000)
        assert await asyncio.to_thread(idle[-1].recv, 10) == b""
        assert await Client(one).answers("web") == ["10.0.0.1"]
        await server.stop("one")
        await server.stop("one")
    finally:
        for sock in idle:
            sock.close()


async def test_containers_of_other_nodes_are_answered_beside_those_here_also_by_the_next_executor(
    server: NameServer, resolv_conf: Path, one: Namespace, tmp_path: Path
) -> None:
    network, client = Network(id="n1", name="n1-net", bridge=""), Client(one)
    here = Resolving(networks=("n1",), forward=False)
    web = ContainerElsewhere(id="c1", names=("web", "front", "0123456789ab"), addresses=("10.0.2.1", "fd00:2::1"))
    async with Database(tmp_path / "state.db", schema=elsewhere.SCHEMA) as database:
        names = StoredNamesElsewhere(server, database)
        server.register(container("c2", "front", addresses=("10.0.0.2",)))
        await server.serve("one", namespace=one.path, resolving=here)
        assert await names.set(network, [web], version=5, renumbered=False) == 5
        for name in ("web", "0123456789ab", "WEB.n1-net"):
            assert await client.answers(name) == ["10.0.2.1"]
        assert await client.answers("web", "AAAA") == ["fd00:2::1"]
        assert await client.answers("front") == ["10.0.0.2", "10.0.2.1"]
        assert await client.answers("1.2.0.10.in-addr.arpa", "PTR") == ["web.n1-net."]
        # It moves here: what is still said of it elsewhere does not take its name away, nor does the end of that.
        server.register(container("c1", "web", addresses=("10.0.0.9",)))
        assert await client.answers("web") == ["10.0.0.9", "10.0.2.1"]
        assert await names.set(network, [], version=6, renumbered=False) == 6
        assert await client.answers("web") == ["10.0.0.9"]
        # What is late changes nothing, unless the numbers began anew.
        assert await names.set(network, [web], version=4, renumbered=False) == 6
        assert await client.answers("web") == ["10.0.0.9"]
        assert await names.set(network, [web], version=4, renumbered=True) == 4
        assert await client.answers("web") == ["10.0.0.9", "10.0.2.1"]
        await server.stop("one")
        async with NameServer(resolv_conf=resolv_conf) as later:
            again = StoredNamesElsewhere(later, database)
            await again.load()
            await later.serve("one", namespace=one.path, resolving=here)
            assert await client.answers("web") == ["10.0.2.1"]
            assert await again.set(network, [], version=3, renumbered=False) == 4
            await again.forget("n1")
            assert await client.answers("web") == "SERVFAIL"
            assert await again.set(network, [web], version=1, renumbered=False) == 1
