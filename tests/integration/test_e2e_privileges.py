"""What a container may do and what it shares with its node, seen from inside it."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from slipway.v1 import container_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb

from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

_STATUS = "grep -E '^(CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status"
_ADMIN, _NET_RAW, _CHOWN, _TIME = 1 << 21, 1 << 13, 1 << 0, 1 << 25


def _own_bounding_set() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return int(line.split()[1], 16)


async def _status(engine: Slipway, **options: Any) -> dict[str, int]:
    said = await engine.output("sh", "-c", _STATUS, **options)
    return {name: int(value, 16) for name, value in (line.split(":\t") for line in said.splitlines())}


async def test_capabilities_are_the_defaults_without_and_with_what_was_said(engine: Slipway) -> None:
    seen = await _status(engine, cap_add=["SYS_TIME"], cap_drop=["cap_net_raw", "chown"])
    assert seen["CapEff"] == seen["CapBnd"] == (0xA80425FB | _TIME) & ~_NET_RAW & ~_CHOWN
    assert (seen["CapInh"], seen["CapAmb"], seen["NoNewPrivs"], seen["Seccomp"]) == (0, 0, 0, 2)

    seen = await _status(engine, cap_drop=["ALL"], cap_add=["net_raw"], security_opt=["no-new-privileges"])
    assert (seen["CapEff"], seen["CapBnd"], seen["NoNewPrivs"]) == (_NET_RAW, _NET_RAW, 1)

    seen = await _status(engine, cap_add=["ALL"], cap_drop=["SYS_ADMIN"])
    assert seen["CapEff"] == _own_bounding_set() & ~_ADMIN


_PRIVILEGED = """
mount -t tmpfs none /tmp && echo mounted
unshare -m true && echo unshared
[ -b /dev/loop0 ] && head -c 1 /dev/loop0 >/dev/null; echo loop $?
mknod /tmp/kmsg c 1 11 && head -c 0 /tmp/kmsg && echo kmsg
wc -c < /proc/keys
d=/sys/fs/cgroup; [ -d $d/pids ] && d=$d/pids; mkdir $d/probe && rmdir $d/probe && echo cgroup
grep -c ' /sys sysfs rw' /proc/mounts
"""


async def test_a_privileged_container_has_everything(engine: Slipway) -> None:
    seen = await _status(engine, privileged=True)
    assert seen["CapEff"] == _own_bounding_set()
    assert seen["Seccomp"] == 0
    said = (await engine.output("sh", "-c", _PRIVILEGED, privileged=True)).splitlines()
    assert {"mounted", "unshared", "kmsg", "cgroup"} <= set(said), said
    if Path("/dev/loop0").exists():
        assert "loop 0" in said, said
    assert said[-1] == "1", said
    assert "0" not in said, said  # /proc/keys is not hidden


async def test_cgroups_are_read_only_unless_asked_for(engine: Slipway) -> None:
    script = next(line for line in _PRIVILEGED.splitlines() if line.startswith("d="))
    assert "cgroup\n" not in await engine.output("sh", "-c", script)
    said = await engine.output("sh", "-c", script, security_opt=["writable-cgroups=true"], cgroupns_mode="private")
    assert said == "cgroup\n"


async def test_seccomp_and_hidden_paths(engine: Slipway) -> None:
    usual = await engine.output("sh", "-c", "unshare -U true 2>&1; wc -c < /proc/keys; mkdir /x")
    assert "not permitted" in usual
    assert usual.splitlines()[-1] == "0"

    free = await engine.output(
        "sh", "-c", f"unshare -U true && echo unshared; wc -c < /proc/keys; {_STATUS}",
        security_opt=["seccomp=unconfined", "systempaths=unconfined"],
    )  # fmt: skip
    assert free.splitlines()[0] == "unshared"
    assert free.splitlines()[1] != "0"
    assert "Seccomp:\t0" in free

    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "excludes": {"caps": ["CAP_SYS_TIME"]}},
            {
                "names": ["chmod", "fchmodat", "fchmodat2"],
                "action": "SCMP_ACT_ERRNO",
                "includes": {"minKernel": "99.0"},
            },
        ],
    }
    script = (
        "exec 2>&1; mkdir /x; mkdir -p /tmp; rmdir /root; "
        "chmod 700 /tmp && echo chmod; unshare -U true && echo unshared"
    )
    for _ in range(2):  # the second time with the filter that was compiled the first time
        own = await engine.output("sh", "-c", script, security_opt=[f"seccomp={json.dumps(profile)}"])
        assert "No space left" in own
        assert "I/O error" in own or "Input/output error" in own
        assert own.splitlines()[-2:] == ["chmod", "unshared"]

    listed = await engine.output(
        "sh", "-c", "cat /etc/passwd | wc -c; (echo x >> /etc/group) 2>&1; ls /var/www; wc -c < /proc/keys",
        masked_paths=container_pb2.PathList(paths=["/etc/passwd"]),
        readonly_paths=container_pb2.PathList(paths=["/etc/group"]),
    )  # fmt: skip
    assert listed.splitlines()[0] == "0"
    assert "Read-only" in listed
    assert listed.splitlines()[-1] != "0"


_NAMESPACES = (
    "for ns in ipc pid uts cgroup user; do echo $ns $(readlink /proc/self/ns/$ns); done; cat /proc/1/comm; hostname"
)


def _host_namespace(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - not a path


async def test_namespaces_are_its_own_or_the_nodes(engine: Slipway) -> None:
    own = dict(line.split() for line in (await engine.output("sh", "-c", _NAMESPACES)).splitlines()[:5])
    assert all(own[kind] != _host_namespace(kind) for kind in ("ipc", "pid", "uts"))
    assert own["user"] == _host_namespace("user")

    said = (
        await engine.output(
            "sh", "-c", _NAMESPACES, ipc_mode="host", pid_mode="host", uts_mode="host", cgroupns_mode="private"
        )
    ).splitlines()
    shared = dict(line.split() for line in said[:5])
    assert all(shared[kind] == _host_namespace(kind) for kind in ("ipc", "pid", "uts"))
    assert shared["cgroup"] != _host_namespace("cgroup")
    assert said[5] == Path("/proc/1/comm").read_text().strip()
    assert said[6] == os.uname().nodename

    nothing = await engine.output("sh", "-c", "ls -d /dev/shm 2>&1; readlink /proc/self/ns/ipc", ipc_mode="none")
    assert "No such file" in nothing
    assert _host_namespace("ipc") not in nothing


async def test_ipc_and_processes_are_shared_with_another_container(engine: Slipway) -> None:
    script = "echo hello > /dev/shm/word; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid; exec sleep 300"
    owner = await engine.run("sh", "-c", script, ipc_mode="shareable", name="owner")
    lines: list[str] = []
    while len(lines) < 2:
        lines = (await engine.logs(owner)).decode().split()
    said = await engine.output(
        "sh", "-c", "cat /dev/shm/word; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid; cat /proc/1/comm; "
        "echo back > /dev/shm/answer",
        ipc_mode="container:owner", pid_mode="container:owner",
    )  # fmt: skip
    assert said.split() == ["hello", *lines, "init"]

    unshared = await engine.run("sleep", "300", name="unshared")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await engine.create("true", ipc_mode="container:unshared")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "shareable" in str(refused.value.details())
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await engine.create("true", pid_mode="container:nobody")
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND

    joiner = await engine.create("sleep", "300", ipc_mode="container:owner", pid_mode="container:owner", name="joiner")
    assert (await engine.inspect(joiner)).host_config.pid_mode == f"container:{owner}"
    await engine.start(joiner)
    await engine.kill(owner)
    assert (await engine.wait(joiner)).exit_code == 137  # its process namespace ended
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await engine.start(joiner)
    assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "does not run" in str(ended.value.details())
    for container in (joiner, unshared, owner):
        await engine.remove(container)


async def test_what_shares_the_nodes_processes_leaves_none_behind(engine: Slipway) -> None:
    length = f"4321{os.getpid()}"  # nobody else's
    container = await engine.run(
        "sh", "-c", f"sleep {length} & sleep {length} >/dev/null 2>&1 & echo up", pid_mode="host"
    )
    assert (await engine.wait(container)).exit_code == 0
    await engine.remove(container)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            assert path.read_bytes() != b"sleep\x00%b\x00" % length.encode()


async def test_an_init_is_process_one(engine: Slipway) -> None:
    script = "cat /proc/1/comm; (sleep 0.1 &); sleep 0.3; ps -o stat,comm | grep -c '^Z'; exit 7"
    container = await engine.run("sh", "-c", script)
    assert (await engine.wait(container)).exit_code == 7
    assert (await engine.logs(container)).split() == [b"init", b"0"]
    await engine.remove(container)
    assert (await engine.output("cat", "/proc/1/comm", init=False)).strip() == "cat"
    # A program that has no handler for it: as process 1 it would not hear the signal.
    container = await engine.run("sleep", "300")
    await engine.kill(container, "TERM")
    assert (await engine.wait(container)).exit_code == 143
    await engine.remove(container)
    refused = await engine.output("sh", "-c", "(echo x > /proc/1/exe) 2>&1; (echo x > /dev/init) 2>&1")
    assert len(refused.splitlines()) == 2


async def test_a_stop_of_what_has_an_init_lasts_as_long_as_its_program(engine: Slipway) -> None:
    """That has no handler: as process 1 it would be killed after ten minutes."""
    container = await engine.run("sleep", "1000")
    stop = pb.StopContainerRequest(container=container, timeout=600)
    await engine.containers.StopContainer(stop, timeout=60)
    assert (await engine.inspect(container)).state.exit_code == 143
    await engine.remove(container)


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(
    ("command", "code", "word"),
    [
        (["nothing-like-it"], "127", "nothing-like-it"),
        (["/bin/nothing"], "127", "/bin/nothing"),
        (["/etc/passwd"], "126", "/etc/passwd"),
        (["/etc"], "126", "/etc"),
    ],
)
async def test_a_command_that_cannot_be_started_is_told_at_start(
    engine: Slipway, init: bool, command: list[str], code: str, word: str
) -> None:
    container = await engine.create(*command, init=init)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await engine.start(container)
    assert word in str(refused.value.details())
    assert str((await engine.inspect(container)).state.exit_code) == code
    await engine.remove(container)


async def test_devices_are_given_by_path_and_by_rule(engine: Slipway, tmp_path: Path) -> None:
    disk = tmp_path / "devices" / "below" / "disk"  # the numbers of /dev/loop0, which need no capability to be opened
    disk.parent.mkdir(parents=True)
    os.mknod(disk, 0o640 | stat.S_IFBLK, os.makedev(7, 0))
    (tmp_path / "link").symlink_to("devices")
    script = """
    cd /dev/some/below; stat -c '%t:%T %a' disk; head -c 0 disk && echo read; (: > disk) 2>&1
    mknod /dev/fuse2 c 10 229; head -c 0 /dev/fuse2 && echo rule; mknod /dev/mem2 c 1 1; head -c 0 /dev/mem2 2>&1
    [ -c /opt/null ] && echo elsewhere
    """
    said = await engine.output(
        *("sh", "-c", script),
        devices=[
            resources_pb2.DeviceMapping(
                path_on_host=str(tmp_path / "link"), path_in_container="/dev/some", cgroup_permissions="r"
            ),
            resources_pb2.DeviceMapping(path_on_host="/dev/zero", path_in_container="/opt/null"),
        ],
        device_cgroup_rules=["c 10:229 rwm"],
    )
    lines = said.splitlines()
    assert lines[0] == "7:0 640"
    if "7 loop" in Path("/proc/devices").read_text().split("Block devices:")[1]:
        assert lines[1] == "read"
    assert "not permitted" in lines[2]
    assert "not permitted" in lines[-2]
    assert lines[-1] == "elsewhere"
    if Path("/dev/fuse").exists():
        assert "rule" in lines

    for path, why in (("/dev/nothing-like-it", "No such file"), ("/etc/passwd", "no device")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await engine.create("true", devices=[resources_pb2.DeviceMapping(path_on_host=path)])
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "host_config.devices[0].path_on_host" in str(refused.value.details())
        assert why in str(refused.value.details())


async def test_limits_parameters_and_groups(engine: Slipway) -> None:
    script = """
    ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc
    cat /proc/self/oom_score_adj /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max
    cat /proc/sys/net/ipv4/ip_unprivileged_port_start; id -G; cat /proc/sys/kernel/domainname
    """
    said = await engine.output(
        "sh", "-c", script,
        config={"domainname": "example.org"},
        ulimits=[
            resources_pb2.Ulimit(name="nofile", soft=100, hard=200),
            resources_pb2.Ulimit(name="core", soft=0, hard=0),
        ],
        oom_score_adj=77,
        sysctls={"net.core.somaxconn": "99", "kernel.msgmax": "4097", "fs.mqueue.msg_max": "9"},
        group_add=["users", "4242"],
    )  # fmt: skip
    assert said.split() == [
        *("100", "200", "0", "0", "77", "99", "4097", "9", "0"),
        *("0", "100", "4242", "example.org"),
    ]
    container = await engine.create("true", group_add=["nobody-knows"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await engine.start(container)
    assert "host_config.group_add[0]" in str(refused.value.details())
    await engine.remove(container)


@pytest.mark.skipif(bool(_own_bounding_set() & 1 << 24), reason="this machine's root may raise every limit")
async def test_what_the_node_itself_may_not_do_is_told_at_create(engine: Slipway) -> None:
    for asked, field in (
        ({"ulimits": [resources_pb2.Ulimit(name="nofile", soft=1, hard=2**30)]}, "host_config.ulimits[nofile].hard"),
        ({"oom_score_adj": -900}, "host_config.oom_score_adj"),
        ({"cap_add": ["SYS_RESOURCE"]}, "host_config.cap_add[0]"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await engine.create("true", **asked)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in str(refused.value.details())
