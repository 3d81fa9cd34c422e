"""Sandboxes prepared ahead: taken without wiring, never two for one, never left behind."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from common.errors import Internal
from common.sqlite import Database
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.network import records, syscalls, wiring
from executor_service.network.network import NetworkSpec, SubnetSpec
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import PLAIN, bridge_config, bridge_network, exchange, interfaces, plain
from tests.fixtures.netns import command, open_namespace


@pytest.fixture
async def network(tmp_path: Path, database: Database) -> AsyncIterator[Sandboxes]:
    """Two sandboxes stand ready."""
    async with bridge_network(bridge_config(tmp_path, pool_size=2), database) as made:
        await made.reconcile({})
        await _filled(made)
        yield made


async def _filled(network: Sandboxes) -> None:
    async with asyncio.timeout(60):
        await network.wait_prepared()


async def _prepared(database: Database, *, bare: bool = False) -> set[str]:
    """Those of the default network, or those that are on none yet."""
    everything = await database.read(records.everything)
    return {record.token for record in everything if record.sandbox_id is None and bare is (not record.endpoints)}


def _no_wiring(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "nothing can be wired now")

    monkeypatch.setattr(wiring, "wire", fail)


async def test_a_prepared_sandbox_is_taken_without_wiring_and_works(
    network: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _no_wiring(patch)
        one = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        two = await network.create("two", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        assert await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN) == one
    with open_namespace(one.netns_path) as first, open_namespace(two.netns_path) as second:
        assert exchange(first, second, two.endpoints[0].ipv4_address) == one.endpoints[0].ipv4_address
        assert one.endpoints[0].mac_address in first.command("ip", "link", "show", "eth0")
    assert await network.list() == [one, two]


async def test_the_pool_is_filled_again_and_never_beyond_its_size(network: Sandboxes, database: Database) -> None:
    first = await _prepared(database)
    assert len(first) == 2
    for number in range(3):
        await network.create(f"s{number}", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    await _filled(network)
    again = await _prepared(database)
    assert len(again) == 2
    assert not again & first


async def test_many_at_once_share_nothing(network: Sandboxes) -> None:
    sandboxes = await asyncio.gather(
        *(network.create(f"s{n}", mode=NetworkMode.BRIDGE, endpoints=PLAIN) for n in range(10))
    )
    assert len({sandbox.netns_path for sandbox in sandboxes}) == 10
    assert len({sandbox.endpoints[0].ipv4_address for sandbox in sandboxes if sandbox.endpoints}) == 10


async def test_what_is_asked_for_otherwise_begins_with_a_bare_one_and_is_whole(
    network: Sandboxes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    four, both = "4" * 64, "b" * 64
    await network.networks.create(NetworkSpec(id=four, name="four", ipv4=SubnetSpec(), mtu=1400))
    await network.networks.create(NetworkSpec(id=both, name="both", ipv4=SubnetSpec(), ipv6=SubnetSpec(), icc=False))
    bare = await _prepared(database, bare=True)
    assert len(bare) == 2
    mac = "02:00:00:00:00:78"
    with monkeypatch.context() as patch:
        _no_wiring(patch)
        one = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=[EndpointSpec(network_id=four), *PLAIN])
        two = await network.create(
            "two", mode=NetworkMode.BRIDGE, endpoints=[EndpointSpec(network_id=both, mac_address=mac)]
        )
    assert {Path(one.netns_path).name, Path(two.netns_path).name} == bare
    with open_namespace(one.netns_path) as first, open_namespace(two.netns_path) as second:
        assert first.run(interfaces) == {"lo", "eth0", "eth1"}
        shown = first.command("ip", "address", "show", "eth0")
        assert f"inet {one.endpoints[0].ipv4_address}/24" in shown
        assert "inet6" not in shown
        assert "mtu 1400" in shown
        assert one.endpoints[0].mac_address in shown
        assert "default via 172.30.0.1 dev eth1" in first.command("ip", "route")
        shown = second.command("ip", "address", "show", "eth0")
        assert mac in shown
        assert f"inet6 {two.endpoints[0].ipv6_address}/64" in shown
        assert "tentative" not in second.command("ip", "-6", "address", "show", "dev", "eth0", "scope", "global")
        assert second.command("sysctl", "-n", "net.ipv6.conf.eth0.accept_ra").strip() == "0"
        for inside, sandbox in ((first, one), (second, two)):
            inside.command("busybox", "ping", "-c1", "-W5", sandbox.endpoints[0].ipv4_gateway)
        second.command("busybox", "ping", "-6", "-c1", "-W5", two.endpoints[0].ipv6_gateway)
    assert "isolated on" in command("ip", "-d", "link", "show", "master", "br-bbbbbbbbbbbb")
    await _filled(network)
    assert len(await _prepared(database, bare=True)) == 2
    await network.leave("one")
    assert one.netns_path not in {sandbox.netns_path for sandbox in await network.list()}


async def test_a_bare_one_that_cannot_be_furnished_goes_whole(
    network: Sandboxes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await _prepared(database, bare=True)
    asked = plain(mac_address="02:00:00:00:00:77")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "nothing can be furnished now")

    with monkeypatch.context() as patch:
        patch.setattr(wiring, "furnish", fail)
        with pytest.raises(Internal, match="nothing can be furnished now"):
            await network.create("one", mode=NetworkMode.BRIDGE, endpoints=asked)
    assert await network.list() == []
    assert len(before & await _prepared(database, bare=True)) == 1
    again = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=asked)
    assert Path(again.netns_path).name in before


async def test_a_mac_of_the_callers_choice_is_not_for_the_pool(network: Sandboxes, database: Database) -> None:
    prepared = await _prepared(database)
    sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=plain(mac_address="02:00:00:00:00:77"))
    assert sandbox.endpoints[0].mac_address == "02:00:00:00:00:77"
    assert await _prepared(database) == prepared


async def test_who_comes_back_has_its_own_address_on_a_bare_one_and_leaves_those_that_have_others(
    network: Sandboxes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    await network.leave("one")
    await _filled(network)
    prepared, bare = await _prepared(database), await _prepared(database, bare=True)
    with monkeypatch.context() as patch:
        _no_wiring(patch)
        again = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    assert again.endpoints == first.endpoints
    assert again.netns_path != first.netns_path
    assert Path(again.netns_path).name in bare
    with open_namespace(again.netns_path) as inside:
        assert first.endpoints[0].mac_address in inside.command("ip", "link", "show", "eth0")
        inside.command("busybox", "ping", "-c1", "-W5", again.endpoints[0].ipv4_gateway)
    await _filled(network)
    assert await _prepared(database) == prepared


async def test_a_prepared_sandbox_that_vanished_is_replaced_by_a_fresh_one(
    network: Sandboxes, database: Database, tmp_path: Path
) -> None:
    prepared = await _prepared(database)
    for token in prepared:
        syscalls.detach_mount(tmp_path / "netns" / token)
    sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    with open_namespace(sandbox.netns_path) as inside:
        assert inside.run(interfaces) == {"lo", "eth0"}
    assert len(prepared & await _prepared(database)) == 1


async def test_prepared_sandboxes_give_their_addresses_to_whoever_asks(tmp_path: Path, database: Database) -> None:
    config = bridge_config(tmp_path, ipv4_subnet="172.30.0.0/30", pool_size=1)
    async with bridge_network(config, database) as network:
        await network.reconcile({})
        await _filled(network)
        sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=plain(mac_address="02:00:00:00:00:77"))
        assert sandbox.endpoints[0].ipv4_address == "172.30.0.2"


async def test_a_pool_that_cannot_be_filled_hinders_nobody(
    network: Sandboxes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _no_wiring(patch)
        await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        await _filled(network)
        assert len(await _prepared(database)) == 1
    await network.create("two", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    await _filled(network)
    assert len(await _prepared(database)) == 2


async def test_a_cancelled_create_leaves_nothing_of_what_it_took(network: Sandboxes, database: Database) -> None:
    creating = asyncio.create_task(network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN))
    await asyncio.sleep(0)  # it has taken one and queued its write
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert await network.list() == []
    await _filled(network)
    assert len(await _prepared(database)) == 2


async def test_leaving_discards_the_prepared_and_keeps_the_taken(tmp_path: Path, database: Database) -> None:
    config = bridge_config(tmp_path, pool_size=2)
    async with bridge_network(config, database) as outer:
        async with Sandboxes(config, database) as network:
            await network.reconcile({})
            await _filled(network)
            sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        assert await _prepared(database) == set()
        assert [pin.name for pin in (tmp_path / "netns").iterdir()] == [Path(sandbox.netns_path).name]
        assert await outer.list() == [sandbox]


async def test_what_a_crashed_executor_prepared_is_removed(
    network: Sandboxes, database: Database, tmp_path: Path
) -> None:
    left = await _prepared(database)
    await database.write(
        partial(records.insert, record=records.SandboxRecord(token="neverwird", sandbox_id=None, mode=NetworkMode.NONE))
    )
    async with Sandboxes(bridge_config(tmp_path), database) as next_one:
        await next_one.reconcile({})
        assert await _prepared(database) == set()
        assert not any((tmp_path / "netns" / token).exists() for token in left)
