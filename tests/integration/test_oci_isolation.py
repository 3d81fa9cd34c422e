"""What a container can see and do, asked from inside: Docker's defaults in effect under crun and runc."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import InvalidArgument
from executor_service.oci.open_in_root import open_in_root
from executor_service.oci.rootfs import ensure_working_dir
from executor_service.oci.users import resolve_user
from tests.fixtures.oci import UNAVAILABLE, Containers, containers_in, make_rootfs

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)

DEFAULT_MASK = "00000000a80425fb"


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture(params=["crun", "runc"])
def containers(request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path) -> Iterator[Containers]:
    with containers_in(tmp_path, rootfs, request.param) as made:
        yield made


async def status(containers: Containers, *, user: str = "") -> dict[str, str]:
    container, _ = await containers.run("cat", "/proc/self/status", user=user)
    return {name: value.strip() for name, _, value in (line.partition(":") for line in container.output)}


async def test_root_holds_dockers_capabilities_and_inherits_none(containers: Containers) -> None:
    seen = await status(containers)
    assert (seen["CapBnd"], seen["CapPrm"], seen["CapEff"]) == (DEFAULT_MASK,) * 3
    assert (seen["CapInh"], seen["CapAmb"]) == ("0" * 16,) * 2
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "0")


async def test_another_user_holds_no_capability(containers: Containers) -> None:
    seen = await status(containers, user="user")
    assert seen["CapBnd"] == DEFAULT_MASK
    assert (seen["CapPrm"], seen["CapEff"]) == ("0" * 16,) * 2
    assert seen["Uid"].split() == ["1000"] * 4
    assert set(seen["Groups"].split()) == {"1000", "2000"}


async def test_only_the_standard_descriptors_are_open(containers: Containers) -> None:
    # The shell lists its own descriptors by globbing, with one more open while it does.
    container, _ = await containers.run("sh", "-c", "cd /proc/$$/fd && for fd in *; do [ -e $fd ] && echo $fd; done")
    assert container.output == ["0", "1", "2"]


_REFUSED = """
check() {
    if "$@" >/dev/null 2>/tmp/why; then echo "$1 allowed"
    elif grep -q -e "not permitted" -e "are you root" /tmp/why; then echo "$1 refused"
    else cat /tmp/why; fi
}
check mount -t tmpfs none /tmp
check umount /proc
check unshare -m true
check unshare -U true
check nsenter -m -t 1 true
"""


@pytest.mark.parametrize("start", [1, 2])
async def test_forbidden_system_calls_fail_with_eperm(containers: Containers, start: int) -> None:
    """The second start uses the filter that was compiled for the first."""
    for _ in range(start):
        container, _ended = await containers.run("sh", "-c", _REFUSED)
    commands = [line.split()[1] for line in _REFUSED.splitlines() if line.startswith("check ")]
    assert container.output == [f"{command} refused" for command in commands]


_RAW_CALLS = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    print(name, errno.errorcode.get(ctypes.get_errno(), "allowed"))
call("keyctl", 250, 0, -3, 0)
call("add_key", 248, 0, 0, 0, 0, 0)
call("AF_ALG", 41, 38, 5, 0)
call("AF_VSOCK", 41, 40, 1, 0)
call("AF_ALG with a high word", 41, 1 << 32 | 38, 5, 0)
call("AF_VSOCK with a high word", 41, 1 << 32 | 40, 1, 0)
call("AF_INET", 41, 2, 1, 0)
call("io_uring_setup", 425, 1, 0)
call("bpf", 321, 0, 0, 0)
call("perf_event_open", 298, 0, 0, 0, 0, 0)
call("userfaultfd", 323, 0)
call("setns", 308, 0, 0)
call("clone of a user namespace", 56, 0x10000000, 0, 0, 0, 0)
call("clone3", 435, 0, 0)
call("personality ADDR_NO_RANDOMIZE", 135, 0x40000)
call("personality PER_LINUX32", 135, 0x8)
call("personality PER_LINUX", 135, 0)
call("kexec_load", 246, 0, 0, 0, 0)
call("getpid", 39)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
async def test_raw_system_calls_meet_the_profile(containers: Containers) -> None:
    """The machine's own Python inside the container, read-only: busybox has no program for these."""
    container = containers.make("python", "-c", _RAW_CALLS)
    mounts = container.bundle.config["mounts"]
    process = container.bundle.config["process"]
    assert isinstance(mounts, list)
    assert isinstance(process, dict)
    prefix = Path(sys.base_prefix)
    sources = {Path("/usr"), prefix, *(path for path in (Path("/lib"), Path("/lib64")) if path.exists())}
    for source in sorted(sources):
        mounts.append({"destination": str(source), "type": "bind", "source": str(source), "options": ["rbind", "ro"]})
    process["args"][0] = str(prefix / "bin" / f"python3.{sys.version_info.minor}")
    created = await containers.start(container)
    await containers.ended(container, created)
    await containers.delete(container)
    seen = dict(line.rsplit(" ", 1) for line in container.output)
    allowed = {"AF_INET", "personality PER_LINUX32", "personality PER_LINUX", "getpid"}
    assert {name for name, result in seen.items() if result == "allowed"} == allowed
    assert seen.pop("clone3") == "ENOSYS"
    assert {result for name, result in seen.items() if name not in allowed} == {"EPERM"}
    assert len(seen) == 18


async def test_hidden_paths_are_empty_and_read_only_paths_refuse(containers: Containers) -> None:
    script = """
    wc -c < /proc/keys; wc -c < /proc/interrupts; ls /sys/firmware | wc -l
    for path in /proc/irq/default_smp_affinity /proc/sys/kernel/hostname /sys/kernel/x; do
        (echo 1 > $path) 2>&1 | grep -o -e 'Read-only file system' || echo "$path is writable"
    done
    """
    container, _ = await containers.run("sh", "-c", script)
    assert container.output == ["0", "0", "0", *["Read-only file system"] * 3]


async def test_the_mounts_are_dockers(containers: Containers) -> None:
    container, _ = await containers.run("cat", "/proc/mounts", shm_size=1024 * 1024)
    mounts = {line.split()[1]: (line.split()[2], line.split()[3].split(",")) for line in container.output}
    assert mounts["/dev"][0] == "tmpfs"
    assert "size=65536k" in mounts["/dev"][1]
    assert mounts["/dev/shm"][0] == "tmpfs"
    assert {"size=1024k", "nosuid", "nodev", "noexec"} <= set(mounts["/dev/shm"][1])
    assert "ro" in mounts["/sys"][1]
    assert {"/proc", "/dev/pts", "/dev/mqueue", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} <= set(mounts)


async def test_a_read_only_root(containers: Containers) -> None:
    script = """
    for path in /x /tmp/x /etc/hosts; do (echo x >> $path) 2>/dev/null && echo $path; done
    for path in /dev/shm/x /dev/x; do (echo x >> $path) 2>/dev/null && echo $path; done
    """
    container, _ = await containers.run("sh", "-c", script, readonly_rootfs=True)
    assert container.output == ["/dev/shm/x", "/dev/x"]


async def test_names_environment_and_network(containers: Containers) -> None:
    script = "hostname; cat /proc/sys/kernel/domainname; env | sort; cat /etc/hosts; ls /sys/class/net"
    container, _ = await containers.run("sh", "-c", script, domainname="example.org", env=("A=1",), user="user")
    assert container.output[:2] == ["box", "example.org"]
    assert {"A=1", "HOME=/home/user", "HOSTNAME=box"} <= set(container.output)
    assert not any(line.startswith("TERM=") for line in container.output)
    assert "hosts of the test" in container.output
    assert container.output[-1] == "lo"


async def test_low_ports_and_ping_need_no_privilege(containers: Containers) -> None:
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    container, _ = await containers.run("sh", "-c", script)
    assert container.output == ["0", "0\t2147483647"]


async def test_a_terminal(containers: Containers) -> None:
    container, ended = await containers.run("sh", "-c", "tty; echo $TERM; echo err >&2", terminal=True)
    assert ended.code == 0
    assert [line.rstrip("\r") for line in container.output][1:] == ["xterm", "err"]
    assert container.output[0].startswith("/dev/")
    assert " stderr " not in container.log


async def test_devices_are_denied_unless_listed(containers: Containers) -> None:
    # /dev is a tmpfs that allows devices, and MKNOD is granted: only the device cgroup stands in the way.
    script = (
        "mknod /dev/kmsg2 c 1 11 && head -c 1 /dev/kmsg2 2>&1 | grep -o 'not permitted'; head -c 1 /dev/zero | wc -c"
    )
    container, _ = await containers.run("sh", "-c", script)
    assert container.output == ["not permitted", "1"]


async def test_the_runtime_on_the_host_cannot_be_overwritten(containers: Containers) -> None:
    binary = containers.runtime.catalog.resolve(containers.runtime_name).path
    before = binary.read_bytes()
    await containers.run("sh", "-c", "echo broken > /proc/self/exe; echo broken > /proc/1/exe; true")
    assert binary.read_bytes() == before


async def test_leaving_through_a_working_directory_is_refused(containers: Containers, tmp_path: Path) -> None:
    for number in range(3, 14):
        with pytest.raises(InvalidArgument, match="descriptors"):
            containers.make("pwd", working_dir=f"/proc/self/fd/{number}")
    (containers.rootfs / "link").unlink(missing_ok=True)
    (containers.rootfs / "link").symlink_to("/proc/self/fd/7")
    with pytest.raises(InvalidArgument, match="leads nowhere"):
        ensure_working_dir(containers.rootfs, "/link")


@pytest.mark.parametrize("place", ["/proc/self/fd/7", "/dev/fd/7"])
def test_a_link_to_where_the_image_has_what_the_kernel_will_hide_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / place.lstrip("/")).mkdir(parents=True)
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(InvalidArgument, match="descriptors"):
        ensure_working_dir(tmp_path, "/link")


async def test_a_missing_working_directory_is_made_inside(containers: Containers, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    trap = containers.rootfs / "trap"
    trap.unlink(missing_ok=True)
    trap.symlink_to(outside)
    with pytest.raises(InvalidArgument):
        ensure_working_dir(containers.rootfs, "/trap/x")
    assert list(outside.iterdir()) == []
    ensure_working_dir(containers.rootfs, "/srv/deep/dir")
    container, ended = await containers.run("pwd", working_dir="/srv/deep/dir")
    assert (ended.code, container.output) == (0, ["/srv/deep/dir"])


def test_passwd_outside_the_root_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").symlink_to("../../passwd")
    with pytest.raises(InvalidArgument, match="no 'evil'"):
        resolve_user(root, "evil")
    with pytest.raises(FileNotFoundError):
        open_in_root(root, "../../passwd", flags=0)
