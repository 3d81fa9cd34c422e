"""What the kernel's files say of a container's use, v1's and v2's, and of its processes."""

from __future__ import annotations

import os
from pathlib import Path

from executor_service.oci import cgroup_stats as stats
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.process_list import list_processes

NET_DEV = b"""Inter-|   Receive                          |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
  eth0:    1500      15    1    2    0     0          0         0      700       7    3    4    0     0       0   0
"""


def test_cpu() -> None:
    v1 = stats.parse_v1_cpu(b"500\n", b"200\n", b"nr_periods 10\nnr_throttled 4\nthrottled_time 9000\n")
    assert v1 == {"cpu_usage": 500, "cpu_system": 200, "throttled_periods": 4, "throttled_time": 9000}
    text = b"usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 4\nthrottled_usec 9\n"
    v2 = stats.parse_v2_cpu(text)
    assert v2 == {"cpu_usage": 5000, "cpu_system": 2000, "throttled_periods": 4, "throttled_time": 9000}


def test_memory_is_without_what_can_be_dropped() -> None:
    text = b"cache 1\ninactive_file 1\ntotal_cache 300\ntotal_inactive_file 200\n"
    v1 = stats.parse_v1_memory(b"1000\n", b"9223372036854771712\n", text)
    assert v1 == {"memory_usage": 800, "memory_limit": 0, "memory_cache": 300}
    v2 = stats.parse_v2_memory(b"1000\n", b"max\n", b"anon 1\nfile 300\ninactive_file 200\n")
    assert v2 == {"memory_usage": 800, "memory_limit": 0, "memory_cache": 300}
    assert stats.parse_v1_memory(b"1000", b"4096", b"")["memory_limit"] == 4096


def test_processes_and_disks() -> None:
    assert stats.parse_pids(b"3\n", b"max\n") == {"pids": 3, "pids_limit": 0}
    assert stats.parse_pids(b"3\n", b"50\n") == {"pids": 3, "pids_limit": 50}
    v1 = stats.parse_v1_blkio(b"254:0 Read 10\n254:0 Write 20\n254:0 Total 30\n8:0 Read 1\nTotal 31\n")
    v2 = stats.parse_v2_io(b"254:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:0 rbytes=1 wbytes=0\n")
    assert v1 == v2 == {"blkio_read": 11, "blkio_write": 20}
    assert stats.parse_v1_blkio(b"") == {"blkio_read": 0, "blkio_write": 0}


def test_interfaces() -> None:
    (found,) = stats.parse_net_dev(NET_DEV)
    assert (found.name, found.rx_bytes, found.rx_packets, found.rx_errors, found.rx_dropped) == ("eth0", 1500, 15, 1, 2)
    assert (found.tx_bytes, found.tx_packets, found.tx_errors, found.tx_dropped) == (700, 7, 3, 4)


def test_what_has_ended_is_left_out(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("cpu", "cpuacct", "memory", "pids", "blkio")}
    (tmp_path / "pids/lives").mkdir(parents=True)
    (tmp_path / "pids/lives/pids.current").write_text("2\n")
    tree = CgroupTree(hierarchies=tuple(roots.values()), controllers=roots)
    targets = [stats.Target(container_id=name, cgroups_path=f"/{name}", pid=0) for name in ("ended", "lives")]
    (found,) = stats.read_stats(tree, targets)
    assert (found.container_id, found.pids, found.cpu_usage, found.interfaces) == ("lives", 2, 0, ())


def test_a_process_with_spaces_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu 1\nbtime 1000\n")
    directory = tmp_path / "42"
    directory.mkdir()
    fields = "S 7 42 42 0 -1 0 0 0 0 0 100 50 0 0 20 0 3 0 500 9999 12"
    (directory / "stat").write_text(f"42 (a) b) {fields} 0\n")
    (directory / "status").write_text("Name:\ta) b\nUid:\t33\t33\t33\t33\nNSpid:\t42\t1\n")
    (directory / "cmdline").write_bytes(b"prog\0\0two words\0")
    (found,) = list_processes({42, 43}, shares_pids=False, proc=tmp_path)
    ticks, second = os.sysconf("SC_CLK_TCK"), 1_000_000_000
    assert (found.pid, found.container_pid, found.parent_pid, found.uid) == (42, 1, 7, 33)
    assert (found.state, found.threads, found.command) == ("S", 3, ("prog", "", "two words"))
    assert found.started_at == 1000 * second + 500 * second // ticks
    assert found.cpu_time == 150 * second // ticks
    assert found.memory == 12 * os.sysconf("SC_PAGE_SIZE")


def test_a_process_without_arguments_or_an_id_inside(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("btime 0\n")
    (tmp_path / "9").mkdir()
    (tmp_path / "9/stat").write_text("9 (kworker/0) I 2 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0\n")
    (tmp_path / "9/status").write_text("Uid:\t0\t0\t0\t0\nNSpid:\t9\n")
    (tmp_path / "9/cmdline").write_bytes(b"")
    (found,) = list_processes({9}, shares_pids=False, proc=tmp_path)
    assert (found.command, found.container_pid) == (("[kworker/0]",), 0)
    (found,) = list_processes({9}, shares_pids=True, proc=tmp_path)
    assert found.container_pid == 9
