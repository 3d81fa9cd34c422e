"""Is there a program for the init to execute? Refused only when there surely is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import StartFailed
from executor_service.container import ContainerSpec
from executor_service.mounts import Mount, MountType
from executor_service.oci.program import check_program
from executor_service.oci.users import ResolvedUser

ROOT = ResolvedUser(uid=0, gid=0)
USER = ResolvedUser(uid=1000, gid=1000, additional_gids=(2000,))
SPEC = ContainerSpec(id="ab" * 32, image_id="", args=("sh",), env=("PATH=/sbin:/bin",), working_dir="/work")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("bin", "work", "etc", "usr", "outside"):
        (root / name).mkdir(parents=True)
    for name, mode in (("bin/sh", 0o755), ("work/run", 0o755), ("bin/plain", 0o644), ("bin/owners", 0o700)):
        (root / name).write_text("x")
        (root / name).chmod(mode)
    (root / "bin/link").symlink_to("/bin/sh")
    (root / "bin/gone").symlink_to("/vol/tool")
    (root / "bin/loop").symlink_to("loop")
    (root / "var-run").symlink_to("/run")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o755)
    return root


def refused(rootfs: Path, *args: str, user: ResolvedUser = ROOT, mounts: tuple[str, ...] = ()) -> int:
    spec = replace(
        SPEC, args=args, mounts=tuple(Mount(type=MountType.VOLUME, source="v", target=target) for target in mounts)
    )
    try:
        check_program(rootfs, spec, user)
    except StartFailed as error:
        assert args[0] in error.message
        return error.exit_code
    return 0


@pytest.mark.parametrize("program", ["sh", "/bin/sh", "./run", "link", "../bin/sh", "/proc/self/exe"])
def test_what_is_there_is_not_refused(rootfs: Path, program: str) -> None:
    assert refused(rootfs, program) == 0


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("nothing", 127),
        ("/bin/nothing", 127),
        ("run", 127),  # not in PATH
        ("/bin/sh/x", 127),
        ("../secret", 127),
        ("/bin/gone", 127),
        ("plain", 126),
        ("/etc", 126),
    ],
)
def test_what_is_surely_not_there_is(rootfs: Path, program: str, code: int) -> None:
    assert refused(rootfs, program) == code


def test_a_loop_of_links_is_left_to_the_kernel(rootfs: Path) -> None:
    assert refused(rootfs, "/bin/loop") == 0


def test_another_user_needs_its_own_right(rootfs: Path) -> None:
    assert refused(rootfs, "owners", user=USER) == 126
    assert refused(rootfs, "owners") == 0


@pytest.mark.parametrize(
    ("program", "mount", "code"),
    [
        ("/vol/tool", "/vol", 0),
        ("/bin/gone", "/vol", 0),  # a link of the image into the mount
        ("/run/tool", "/var-run", 0),  # the mount's own path goes through a link
        ("/a/b/c", "/a/b/c", 0),
        ("plain", "/bin", 0),
        ("nothing", "/bin/nothing", 0),
        ("/volume", "/vol", 127),
        ("nothing", "/vol", 127),
        ("/dev/x", "/vol", 0),
    ],
)
def test_what_may_lie_on_a_mount_is_left_to_the_init(rootfs: Path, program: str, mount: str, code: int) -> None:
    assert refused(rootfs, program, mounts=(mount,)) == code
