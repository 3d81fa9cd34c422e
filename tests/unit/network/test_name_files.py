from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import InvalidArgument
from executor_service.container import ContainerSpec, NameResolution, NetworkMode
from executor_service.network.files import (
    NameFiles,
    name_files,
    resolv_conf_content,
    restore_name_files,
    update_name_files,
    write_name_files,
)
from executor_service.network.sandbox import Endpoint

ENDPOINT = Endpoint(
    network_id="bridge",
    network_name="bridge",
    interface="eth0",
    mac_address="02:00:00:00:00:01",
    ipv4_address="172.30.0.2",
    ipv4_prefix_length=16,
    ipv4_gateway="172.30.0.1",
    ipv6_address="fd12::2",
    ipv6_prefix_length=64,
    ipv6_gateway="fd12::1",
)
SPEC = ContainerSpec(id="a" * 64, image_id="", args=("true",), hostname="web")
LOOPBACK = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def _files(spec: ContainerSpec, *, endpoints: Sequence[Endpoint] = (ENDPOINT,), resolv_conf: str = "") -> NameFiles:
    return name_files(
        spec,
        endpoints=endpoints,
        host_gateway=("172.30.0.1", "fd12::1"),
        host_hosts="127.0.0.1 localhost\n10.9.9.9 printer",
        host_resolv_conf=resolv_conf,
    )


def test_hosts_holds_the_loopback_names_then_the_container_on_both_families() -> None:
    assert _files(SPEC).hosts == f"{LOOPBACK}172.30.0.2\tweb\nfd12::2\tweb\n"


@pytest.mark.parametrize(
    ("hostname", "domainname", "names"),
    [("web", "example.org", "web.example.org web"), ("web.example.org", "", "web.example.org web"), ("web", "", "web")],
)
def test_the_qualified_name_comes_before_the_short_one(hostname: str, domainname: str, names: str) -> None:
    hosts = _files(replace(SPEC, hostname=hostname, domainname=domainname)).hosts
    assert hosts.endswith(f"172.30.0.2\t{names}\nfd12::2\t{names}\n")


def test_without_a_network_hosts_holds_the_loopback_names_alone() -> None:
    assert _files(replace(SPEC, network_mode=NetworkMode.NONE), endpoints=()).hosts == LOOPBACK


def test_on_the_hosts_network_the_hosts_own_names_are_kept() -> None:
    spec = replace(SPEC, network_mode=NetworkMode.HOST, names=NameResolution(extra_hosts=(("db", "10.0.0.9"),)))
    assert _files(spec, endpoints=()).hosts == "127.0.0.1 localhost\n10.9.9.9 printer\n10.0.0.9\tdb\n"


def test_extra_hosts_stand_before_the_container_and_host_gateway_is_the_bridge() -> None:
    names = NameResolution(extra_hosts=(("db", "10.0.0.9"), ("docker.host", "host-gateway"), ("six", "fd99::1")))
    hosts = _files(replace(SPEC, names=names)).hosts
    expected = "10.0.0.9\tdb\n172.30.0.1\tdocker.host\nfd12::1\tdocker.host\nfd99::1\tsix\n"
    assert hosts == f"{LOOPBACK}{expected}172.30.0.2\tweb\nfd12::2\tweb\n"


@pytest.mark.parametrize(
    "pair",
    [
        ("a\n1.2.3.4 bank", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("a b", "10.0.0.1"),
        ("a", "10.0.0.1\n1.2.3.4 bank"),
        ("a", "ten"),
    ],
)
def test_an_extra_host_cannot_bring_lines_of_its_own(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _files(replace(SPEC, names=NameResolution(extra_hosts=(pair,))))
    assert caught.value.violations[0].field == "extra_hosts"


def test_a_hostname_cannot_bring_lines_of_its_own() -> None:
    with pytest.raises(InvalidArgument):
        _files(replace(SPEC, hostname="web\n1.2.3.4 bank"))


def test_the_hostname_file_is_the_name_and_a_newline() -> None:
    assert _files(SPEC).hostname == "web\n"


def test_loopback_resolvers_of_the_host_are_left_out() -> None:
    host = (
        "# by hand\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.53 # lan\n"
        "search example.org lan\noptions edns0\n"
    )
    expected = "nameserver 192.0.2.53\nsearch example.org lan\noptions edns0\n"
    assert resolv_conf_content(host, NameResolution(), own_namespace=True) == expected


@pytest.mark.parametrize("host", ["", "nameserver 127.0.0.53\n", "nameserver\n"])
def test_public_resolvers_take_the_place_of_none(host: str) -> None:
    content = resolv_conf_content(host, NameResolution(), own_namespace=True)
    assert content == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_each_setting_of_the_container_replaces_the_hosts() -> None:
    host = "nameserver 192.0.2.53\nsearch lan\noptions edns0\n"
    names = NameResolution(servers=("127.0.0.1", "fd00::53"), options=("ndots:2",))
    expected = "nameserver 127.0.0.1\nnameserver fd00::53\nsearch lan\noptions ndots:2\n"
    assert resolv_conf_content(host, names, own_namespace=True) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NameResolution(), "search lan\noptions edns0 ndots:0\n"),
        (NameResolution(servers=("192.0.2.1",), search=("a",)), "search a\noptions edns0 ndots:0\n"),
        (NameResolution(options=("ndots:2",)), "search lan\noptions ndots:2\n"),
    ],
)
def test_on_a_user_network_the_executor_is_the_only_resolver(names: NameResolution, expected: str) -> None:
    user = replace(ENDPOINT, network_id="0" * 64)
    host = "nameserver 192.0.2.53\nsearch lan\noptions edns0\n"
    for endpoints in ((user,), (ENDPOINT, user)):
        files = _files(replace(SPEC, names=names), endpoints=endpoints, resolv_conf=host)
        assert files.resolv_conf == f"nameserver 127.0.0.11\n{expected}"
    assert "127.0.0.11" not in _files(replace(SPEC, names=names), resolv_conf=host).resolv_conf


def test_a_dot_as_search_domain_means_none_at_all() -> None:
    names = NameResolution(search=(".",))
    assert resolv_conf_content("nameserver 192.0.2.53\nsearch lan\n", names, own_namespace=True) == (
        "nameserver 192.0.2.53\n"
    )


def test_on_the_hosts_network_the_hosts_file_is_taken_as_it_is_unless_overridden() -> None:
    host = "# as is\nnameserver 127.0.0.53\nsortlist 130.155.160.0\n"
    assert resolv_conf_content(host, NameResolution(), own_namespace=False) == host
    overridden = resolv_conf_content(host, NameResolution(search=("lan",)), own_namespace=False)
    assert overridden == "nameserver 127.0.0.53\nsearch lan\n"


@pytest.mark.parametrize(
    "names",
    [
        NameResolution(servers=("not-an-address",)),
        NameResolution(search=("lan\nnameserver 6.6.6.6",)),
        NameResolution(options=("",)),
    ],
)
def test_a_setting_cannot_break_out_of_its_line(names: NameResolution) -> None:
    with pytest.raises(InvalidArgument):
        resolv_conf_content("", names, own_namespace=True)


def test_files_are_written_whole_world_readable_and_in_place(tmp_path: Path) -> None:
    write_name_files(tmp_path, NameFiles(hosts="long long content\n", hostname="a\n", resolv_conf="x\n"))
    inode = (tmp_path / "hosts").stat().st_ino
    write_name_files(tmp_path, NameFiles(hosts="short\n", hostname="b\n", resolv_conf=""))
    assert (tmp_path / "hosts").read_text() == "short\n"
    assert (tmp_path / "hosts").stat().st_ino == inode
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "hosts": 0o644,
        "hostname": 0o644,
        "resolv.conf": 0o644,
    }


def test_what_the_container_has_changed_is_its_own(tmp_path: Path) -> None:
    old = NameFiles(hosts="old\n", hostname="a\n", resolv_conf="old\n")
    new = NameFiles(hosts="new\n", hostname="a\n", resolv_conf="new\n")
    write_name_files(tmp_path, old)
    inode = (tmp_path / "resolv.conf").stat().st_ino
    (tmp_path / "hosts").write_text("old\n10.0.0.1 mine\n")
    (tmp_path / "hostname").write_text("mine\n")
    update_name_files(tmp_path, old=old, new=new)
    contents = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert contents == {"hosts": "old\n10.0.0.1 mine\n", "hostname": "mine\n", "resolv.conf": "new\n"}
    assert (tmp_path / "resolv.conf").stat().st_ino == inode


def test_a_change_that_was_cut_off_is_made_good_and_what_the_container_has_changed_is_its_own(tmp_path: Path) -> None:
    user = replace(ENDPOINT, network_id="0" * 64, ipv4_address="10.1.0.9", ipv6_address="")
    bare, plain, both = _files(SPEC, endpoints=()), _files(SPEC), _files(SPEC, endpoints=(ENDPOINT, user))
    for was, now in ((plain, both), (both, plain), (bare, both), (both, bare), (both, both)):
        write_name_files(tmp_path, was)
        restore_name_files(tmp_path, SPEC, new=now, bare=bare, embedded=both.resolv_conf)
        assert (tmp_path / "hosts").read_text() == now.hosts
        assert (tmp_path / "resolv.conf").read_text() == now.resolv_conf
    for mine in (f"{plain.hosts}10.0.0.1\tmine\n", "10.0.0.1 mine\n", f"# mine\n{plain.hosts}", ""):
        (tmp_path / "hosts").write_text(mine)
        (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.7\n")
        restore_name_files(tmp_path, SPEC, new=both, bare=bare, embedded=both.resolv_conf)
        assert (tmp_path / "hosts").read_text() == mine
        assert (tmp_path / "resolv.conf").read_text() == "nameserver 192.0.2.7\n"


def test_files_are_never_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "hosts").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        write_name_files(directory, NameFiles(hosts="x\n", hostname="a\n", resolv_conf=""))
    assert target.read_text() == "kept"
