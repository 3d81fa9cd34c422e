"""How the host resolves names, and when that is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor_service.dns.upstreams import HostServers, options_of, searches_first, servers_of


@pytest.mark.parametrize(
    ("content", "servers"),
    [
        ("nameserver 127.0.0.53\nnameserver fe80::1%eth0 # by the router\n", ("127.0.0.53", "fe80::1%eth0")),
        ("#nameserver 192.0.2.1\n;nameserver 192.0.2.2\nnameserver\nnameserver name\n", ()),
        ("".join(f"nameserver 192.0.2.{number}\n" for number in range(1, 6)), ("192.0.2.1", "192.0.2.2", "192.0.2.3")),
    ],
)
def test_three_addresses_at_most(content: str, servers: tuple[str, ...]) -> None:
    assert servers_of(content) == servers


def test_options() -> None:
    assert options_of("options edns0 ndots:2\nsearch lan\noptions trust-ad\n") == ("edns0", "ndots:2", "trust-ad")
    assert searches_first(("edns0", "ndots:2"))
    assert not searches_first(("edns0", "ndots:0"))


async def test_the_file_is_looked_at_once_a_second_and_kept_while_it_is_gone(tmp_path: Path) -> None:
    file, now = tmp_path / "resolv.conf", [0.0]
    file.write_text("nameserver 192.0.2.1\noptions ndots:1\n")
    host = HostServers(file, clock=lambda: now[0])
    assert await host.current() == ("192.0.2.1",)
    assert host.search_first
    file.write_text("nameserver 192.0.2.2 \n")
    now[0] = 0.9
    assert await host.current() == ("192.0.2.1",)
    now[0] = 1.0
    assert await host.current() == ("192.0.2.2",)
    assert not host.search_first
    file.unlink()
    now[0] = 2.0
    assert await host.current() == ("192.0.2.2",)
    file.write_text("search lan\n")
    now[0] = 3.0
    assert await host.current() == ("8.8.8.8", "8.8.4.4")
