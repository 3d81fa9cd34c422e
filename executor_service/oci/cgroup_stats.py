"""What containers use, from their cgroups' files and /proc/PID/net/dev. The parsers are pure, the readers block.

Sources: the kernel's cgroup-v1/{cpuacct,memory,pids,blkio-controller}.rst and cgroup-v2.rst, proc_pid_net(5). A file
that is not there, because its controller is not, counts as zero.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from executor_service.limits import Resources
from executor_service.oci.cgroups import CgroupTree
from executor_service.stats import ContainerStats, InterfaceStats

_UNLIMITED = 2**62  # what a v1 file says of no limit is a little below 2**63
_BUFFER = 65536  # bytes; the longest of the files, memory.stat, is some 2000
_MICROSECOND = 1000  # nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running container. `pid`: of a process in its network namespace; 0 when that is not its own. `limits` are those
    it is held to: what stands there is not read again a hundred times a second."""

    container_id: str
    cgroups_path: str
    pid: int
    limits: Resources = field(default_factory=Resources)


class Usage(TypedDict, total=False):
    """Fields of `ContainerStats`."""

    cpu_usage: int
    cpu_system: int
    throttled_periods: int
    throttled_time: int
    memory_usage: int
    memory_limit: int
    memory_cache: int
    pids: int
    pids_limit: int
    blkio_read: int
    blkio_write: int


def read_stats(tree: CgroupTree, targets: Sequence[Target]) -> list[ContainerStats]:
    """Of those that still run, in the order given. Opens one file at a time."""
    roots = {name: str(tree.root(name) or "") for name in ("cpu", "cpuacct", "memory", "pids", "blkio")}
    found = []
    for target in targets:
        usage = _v2(roots["cpu"], target) if tree.is_v2 else _v1(roots, target)
        if usage is None:
            continue
        interfaces = parse_net_dev(_read(f"/proc/{target.pid}/net/dev")) if target.pid else ()
        stats = ContainerStats(
            container_id=target.container_id, time=time.time_ns(), interfaces=tuple(interfaces), **usage
        )
        found.append(stats)
    return found


def _v1(roots: dict[str, str], target: Target) -> Usage | None:
    path = target.cgroups_path
    memory, pids = roots["memory"] + path, roots["pids"] + path
    processes = _read(f"{pids}/pids.current")
    if not processes:
        return None
    return {
        **parse_v1_cpu(
            _read(f"{roots['cpuacct']}{path}/cpuacct.usage"),
            _read(f"{roots['cpuacct']}{path}/cpuacct.usage_sys"),
            _read(f"{roots['cpu']}{path}/cpu.stat") if target.limits.cpu_quota > 0 else b"",
        ),
        **parse_v1_memory(
            _read(f"{memory}/memory.usage_in_bytes"),
            b"%d" % target.limits.memory,
            _read(f"{memory}/memory.stat"),
        ),
        **parse_pids(processes, b"%d" % max(target.limits.pids_limit, 0)),
        **parse_v1_blkio(_read(f"{roots['blkio']}{path}/blkio.throttle.io_service_bytes_recursive")),
    }


def _v2(root: str, target: Target) -> Usage | None:
    group = root + target.cgroups_path
    cpu = _read(f"{group}/cpu.stat")
    if not cpu:
        return None
    return {
        **parse_v2_cpu(cpu),
        **parse_v2_memory(
            _read(f"{group}/memory.current"), b"%d" % target.limits.memory, _read(f"{group}/memory.stat")
        ),
        **parse_pids(_read(f"{group}/pids.current"), b"%d" % max(target.limits.pids_limit, 0)),
        **parse_v2_io(_read(f"{group}/io.stat")),
    }


def parse_v1_cpu(usage: bytes, system: bytes, stat: bytes) -> Usage:
    return {
        "cpu_usage": _number(usage),
        "cpu_system": _number(system),
        "throttled_periods": _field(stat, b"nr_throttled"),
        "throttled_time": _field(stat, b"throttled_time"),
    }


def parse_v2_cpu(stat: bytes) -> Usage:
    return {
        "cpu_usage": _field(stat, b"usage_usec") * _MICROSECOND,
        "cpu_system": _field(stat, b"system_usec") * _MICROSECOND,
        "throttled_periods": _field(stat, b"nr_throttled"),
        "throttled_time": _field(stat, b"throttled_usec") * _MICROSECOND,
    }


def parse_v1_memory(usage: bytes, limit: bytes, stat: bytes) -> Usage:
    bound = _number(limit)
    return {
        "memory_usage": max(_number(usage) - _field(stat, b"total_inactive_file"), 0),
        "memory_limit": 0 if bound >= _UNLIMITED else bound,
        "memory_cache": _field(stat, b"total_cache"),
    }


def parse_v2_memory(current: bytes, limit: bytes, stat: bytes) -> Usage:
    return {
        "memory_usage": max(_number(current) - _field(stat, b"inactive_file"), 0),
        "memory_limit": _number(limit),
        "memory_cache": _field(stat, b"file"),
    }


def parse_pids(current: bytes, limit: bytes) -> Usage:
    return {"pids": _number(current), "pids_limit": _number(limit)}


def parse_v1_blkio(text: bytes) -> Usage:
    """Lines `254:0 Read 4096`, and a total."""
    read = write = 0
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] == b"Read":
            read += int(fields[2])
        elif len(fields) == 3 and fields[1] == b"Write":
            write += int(fields[2])
    return {"blkio_read": read, "blkio_write": write}


def parse_v2_io(text: bytes) -> Usage:
    """Lines `254:0 rbytes=4096 wbytes=0 rios=1 …`."""
    sums = {b"rbytes": 0, b"wbytes": 0}
    for word in text.split():
        name, _, value = word.partition(b"=")
        if name in sums:
            sums[name] += int(value)
    return {"blkio_read": sums[b"rbytes"], "blkio_write": sums[b"wbytes"]}


def parse_net_dev(text: bytes) -> Iterator[InterfaceStats]:
    """Two lines of headings, then `name: ` and 16 counters; loopback is left out."""
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(b":")
        counters = rest.split()
        if len(counters) < 16 or name.strip() == b"lo":
            continue
        yield InterfaceStats(
            name=os.fsdecode(name.strip()),
            rx_bytes=int(counters[0]),
            rx_packets=int(counters[1]),
            rx_errors=int(counters[2]),
            rx_dropped=int(counters[3]),
            tx_bytes=int(counters[8]),
            tx_packets=int(counters[9]),
            tx_errors=int(counters[10]),
            tx_dropped=int(counters[11]),
        )


def _number(text: bytes) -> int:
    """0 for `max`, and for what could not be read."""
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _field(text: bytes, name: bytes) -> int:
    """The number after a name at the beginning of a line. Not a parse of the whole: it is done a hundred times a
    second."""
    at = 0 if text.startswith(name + b" ") else text.find(b"\n" + name + b" ") + 1
    if not at and not text.startswith(name + b" "):
        return 0
    return int(text[at + len(name) + 1 :].split(b"\n", 1)[0])


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _BUFFER)
    except OSError:  # the cgroup or the process went away
        return b""
    finally:
        os.close(descriptor)
