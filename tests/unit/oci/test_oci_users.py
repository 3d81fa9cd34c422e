"""Docker's user grammar against a container's passwd and group, some of them hostile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.errors import InvalidArgument
from executor_service.oci.users import MAX_FILE_SIZE, ResolvedUser, resolve_user

PASSWD = """\
# a comment
root:x:0:0:root:/root:/bin/sh
www:x:33:33::/var/www:/bin/false
broken
nohome:x:50:51
big:x:2147483648:0::/:/bin/sh
"""
GROUP = "root:x:0:\nwww:x:33:\nstaff:x:50:www,root\nextra:x:60:www\nhuge:x:4294967295:\n"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 50), "/root"),
        ("root", 0, 0, (0, 50), "/root"),
        ("www", 33, 33, (33, 50, 60), "/var/www"),
        ("33", 33, 33, (33, 50, 60), "/var/www"),
        ("www:staff", 33, 50, (50,), "/var/www"),
        ("www:7", 33, 7, (7,), "/var/www"),
        ("4711", 4711, 0, (0,), "/"),
        ("4711:4712", 4711, 4712, (4712,), "/"),
        ("nohome", 50, 51, (51,), "/"),
        (":staff", 0, 50, (50,), "/root"),
        ("2147483647", 2147483647, 0, (0,), "/"),
    ],
)
def test_the_grammar(rootfs: Path, user: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    assert resolve_user(rootfs, user) == ResolvedUser(uid=uid, gid=gid, additional_gids=groups, home=home)


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("nobody", "no 'nobody' in the container's /etc/passwd"),
        ("www:nogroup", "no 'nogroup' in the container's /etc/group"),
        ("-1", "no '-1'"),
        ("2147483648", "ids go from 0"),
        ("big", "ids go from 0"),
        ("www:huge", "ids go from 0"),
        ("9" * 30, "no '9"),
        ("١٢", "no '١٢'"),
    ],
)
def test_what_is_refused(rootfs: Path, user: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason) as refused:
        resolve_user(rootfs, user)
    assert [violation.field for violation in refused.value.violations] == ["config.user"]


def test_numbers_need_no_files(tmp_path: Path) -> None:
    assert resolve_user(tmp_path, "5:6") == ResolvedUser(uid=5, gid=6, additional_gids=(6,), home="/")
    assert resolve_user(tmp_path, "").uid == 0


def test_a_fifo_is_refused_at_once(rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    os.mkfifo(rootfs / "etc/passwd")
    with pytest.raises(InvalidArgument, match="regular file"):
        resolve_user(rootfs, "root")


def test_a_file_without_end_is_refused(rootfs: Path) -> None:
    with (rootfs / "etc/passwd").open("wb") as file:
        file.truncate(MAX_FILE_SIZE + 1)
    with pytest.raises(InvalidArgument, match="larger than"):
        resolve_user(rootfs, "root")


def test_a_link_to_the_hosts_passwd_finds_the_containers(rootfs: Path) -> None:
    (rootfs / "etc/passwd").rename(rootfs / "etc/other")
    (rootfs / "etc/passwd").symlink_to("/etc/other")
    assert resolve_user(rootfs, "www").uid == 33


def test_control_characters_in_home_are_refused(rootfs: Path) -> None:
    (rootfs / "etc/passwd").write_text("evil:x:1:1::/home/\x1bx:/bin/sh\n")
    with pytest.raises(InvalidArgument, match="control characters"):
        resolve_user(rootfs, "evil")
