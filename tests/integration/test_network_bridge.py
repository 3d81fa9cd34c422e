"""The bridge, its table and forwarding on the host: made, adopted, refused, removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from common.errors import FailedPrecondition
from executor_service.container import NetworkMode
from executor_service.network import firewall
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import PLAIN, bridge_config, bridge_network, interfaces, node_state
from tests.fixtures.netns import command


@contextmanager
def _interface(*arguments: str, address: str = "") -> Iterator[None]:
    command("ip", "link", "add", *arguments)
    try:
        if address:
            command("ip", "address", "add", address, "dev", arguments[0])
        command("ip", "link", "set", arguments[0], "up")
        yield
    finally:
        command("ip", "link", "delete", arguments[0])


def _traces(directory: Path) -> tuple[set[str], str, list[str]]:
    """All that a bridge network could leave on the host, whose mounts are others' too."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    own = [line for line in mounts if f" {directory}" in line]
    return interfaces(), command("nft", "list", "ruleset"), own


async def test_entering_makes_the_bridge_and_teardown_leaves_nothing(tmp_path: Path) -> None:
    before = _traces(tmp_path)
    async with node_state(tmp_path) as database, bridge_network(bridge_config(tmp_path), database) as network:
        shown = command("ip", "address", "show", "swtest0")
        assert "172.30.0.1/24" in shown
        assert "fd12:3456:789a::1/64" in shown
        assert "tentative" not in command("ip", "-6", "address", "show", "dev", "swtest0")
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
        assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n"
        await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        await network.create("two", mode=NetworkMode.NONE)
        await network.teardown()
        await network.teardown()
        assert _traces(tmp_path) == before
        assert not (tmp_path / "netns").exists()


async def test_entering_again_adopts_the_bridge_and_keeps_other_tables(tmp_path: Path) -> None:
    config = bridge_config(tmp_path)
    command("nft", "add table inet elsewhere; add chain inet elsewhere mine { type filter hook forward priority 0; }")
    try:
        async with node_state(tmp_path) as database, bridge_network(config, database) as network:
            ruleset = command("nft", "list", "ruleset")
            index = command("ip", "-o", "link", "show", "swtest0").split(":")[0]
            sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
            async with Sandboxes(config, database) as again:
                assert await again.list() == [sandbox]
            assert command("ip", "-o", "link", "show", "swtest0").split(":")[0] == index
            assert command("nft", "list", "ruleset") == ruleset
            assert "table inet elsewhere" in ruleset
    finally:
        command("nft", "delete", "table", "inet", "elsewhere")


@pytest.mark.parametrize("kind", ["bridge", "ifb"])
async def test_an_interface_of_somebody_else_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    before = _traces(tmp_path)
    with _interface("swtest0", "type", kind, address="198.51.100.1/24"):
        with pytest.raises(FailedPrecondition, match="'swtest0' exists and was not made by this instance"):
            async with node_state(tmp_path) as database, bridge_network(bridge_config(tmp_path), database):
                pytest.fail("must not come up")
        assert "198.51.100.1/24" in command("ip", "address", "show", "swtest0")
    assert _traces(tmp_path) == before


async def test_our_bridge_with_another_subnet_is_refused(tmp_path: Path) -> None:
    config = bridge_config(tmp_path)
    async with node_state(tmp_path) as database, bridge_network(config, database) as network:
        await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        other = replace(config, ipv4_subnet=IPv4Network("172.31.0.0/24"))
        with pytest.raises(FailedPrecondition, match=r"carries the address 172\.30\.0\.1"):
            async with Sandboxes(other, database):
                pytest.fail("must not come up")


@pytest.mark.parametrize("address", ["172.30.0.77/32", "172.30.0.129/25", "172.16.0.1/12", "fd12:3456:789a::77/128"])
async def test_a_subnet_in_use_elsewhere_is_refused_with_the_interface_named(tmp_path: Path, address: str) -> None:
    before = _traces(tmp_path)
    overlaps = pytest.raises(FailedPrecondition, match=r"overlaps .* through vpn0; choose another subnet")
    with _interface("vpn0", "type", "bridge", address=address), overlaps:
        async with node_state(tmp_path) as database, bridge_network(bridge_config(tmp_path), database):
            pytest.fail("must not come up")
    assert _traces(tmp_path) == before


async def test_a_vpns_pair_of_half_default_routes_is_no_overlap(tmp_path: Path) -> None:
    with _interface("vpn0", "type", "bridge", address="198.51.100.1/24"):
        command("ip", "route", "add", "128.0.0.0/1", "dev", "vpn0")
        async with node_state(tmp_path) as database, bridge_network(bridge_config(tmp_path), database):
            assert "swtest0" in interfaces()


async def test_the_mtu_is_that_of_the_default_routes_link(tmp_path: Path) -> None:
    with _interface("up0", "type", "bridge", address="198.51.100.1/24"):
        command("ip", "link", "set", "up0", "mtu", "1400")
        command("ip", "route", "add", "default", "via", "198.51.100.2")
        async with node_state(tmp_path) as database, bridge_network(bridge_config(tmp_path), database) as network:
            sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
            assert "mtu 1400 " in command("ip", "link", "show", "swtest0")
            inside = command("nsenter", f"--net={sandbox.netns_path}", "ip", "link", "show", "eth0")
            assert "mtu 1400 " in inside


async def test_a_bridge_made_by_a_failing_start_is_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FailedPrecondition("no nftables today")

    before = _traces(tmp_path)
    monkeypatch.setattr(firewall, "install_table", refuse)
    async with node_state(tmp_path) as database:
        network = Sandboxes(bridge_config(tmp_path), database)
        with pytest.raises(FailedPrecondition, match="no nftables today"):
            await network.__aenter__()
        assert _traces(tmp_path) == before
