"""From limits to the runtime's configuration and to cgroup files, v1's and v2's, and what is written to get there."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import FailedPrecondition, InvalidArgument
from executor_service.limits import DeviceNumber, Resources
from executor_service.oci.block_devices import block_devices
from executor_service.oci.cgroup_features import probe_features
from executor_service.oci.cgroup_limits import changes, cpu_weight, lines, same, undo_of, v1_settings, v2_settings
from executor_service.oci.cgroup_parents import make_parents, remove_all_parents
from executor_service.oci.cgroup_writer import CgroupWriter
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.resources import needs_more, oci_resources

MIB = 1024 * 1024
DISK = "/dev/disk"
DEVICES = {DISK: (254, 0)}
LIMIT = (DeviceNumber(path=DISK, value=500),)
FULL = Resources(
    memory=64 * MIB,
    memory_reservation=32 * MIB,
    memory_swap=96 * MIB,
    memory_swappiness=0,
    cpu_shares=512,
    cpu_period=50_000,
    cpu_quota=25_000,
    cpuset_cpus="0-1",
    cpuset_mems="0",
    pids_limit=50,
    blkio_weight=300,
    blkio_weight_device=LIMIT,
    blkio_read_bps=LIMIT,
    blkio_write_iops=LIMIT,
)


def test_nothing_asked_is_nothing_written() -> None:
    assert oci_resources(Resources(), {}, v2=False) == {}
    assert not needs_more(Resources(), v2=True)


def test_configuration_of_the_runtime() -> None:
    throttle = [{"major": 254, "minor": 0, "rate": 500}]
    assert oci_resources(FULL, DEVICES, v2=False) == {
        "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB, "swappiness": 0},
        "cpu": {"shares": 512, "period": 50_000, "quota": 25_000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 50},
        "blockIO": {"throttleReadBpsDevice": throttle, "throttleWriteIOPSDevice": throttle},
    }
    assert needs_more(FULL, v2=False)


def test_configuration_for_v2_leaves_out_what_runtimes_convert_differently() -> None:
    found = oci_resources(FULL, DEVICES, v2=True)
    assert "shares" not in found["cpu"]
    assert "swappiness" not in found["memory"]
    assert needs_more(Resources(cpu_shares=512), v2=True)
    assert not needs_more(Resources(cpu_shares=512), v2=False)


def test_no_swap_on_a_host_that_does_not_account_for_it() -> None:
    assert oci_resources(Resources(memory=MIB, memory_swap=-1), {}, v2=False, swap=False) == {"memory": {"limit": MIB}}


def texts(settings: object) -> dict[str, str]:
    return {setting.file: setting.text for setting in settings}  # type: ignore[attr-defined]


def test_files_of_v1() -> None:
    assert texts(v1_settings(FULL, DEVICES)) == {
        "memory.limit_in_bytes": str(64 * MIB),
        "memory.memsw.limit_in_bytes": str(96 * MIB),
        "memory.soft_limit_in_bytes": str(32 * MIB),
        "memory.swappiness": "0",
        "cpu.shares": "512",
        "cpu.cfs_period_us": "50000",
        "cpu.cfs_quota_us": "25000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "pids.max": "50",
        "blkio.bfq.weight": "300",
        "blkio.bfq.weight_device": "254:0 500",
        "blkio.throttle.read_bps_device": "254:0 500",
        "blkio.throttle.write_iops_device": "254:0 500",
    }


def test_files_of_v2() -> None:
    found = [setting.text for setting in v2_settings(FULL, DEVICES)]
    assert found == [
        str(64 * MIB), str(32 * MIB), str(32 * MIB), "59", "25000 50000", "0-1", "0", "50", "300", "254:0 500",
        "254:0 rbps=500 wbps=max riops=max wiops=500",
    ]  # fmt: skip
    unlimited = texts(v2_settings(Resources(memory_swap=-1, cpu_quota=-1, pids_limit=-1), {}))
    assert (unlimited["memory.max"], unlimited["memory.swap.max"]) == ("max", "max")
    assert (unlimited["cpu.max"], unlimited["cpu.weight"], unlimited["pids.max"]) == ("max 100000", "100", "max")


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262_144, 10_000), (1, 1), (10**9, 10_000)])
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@pytest.mark.parametrize(
    ("memory", "swap", "order"),
    [
        (200, 400, ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]),
        (50, 60, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
        (50, -1, ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]),
        (110, 150, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
    ],
)
def test_memory_is_never_more_than_memory_with_swap(memory: int, swap: int, order: list[str]) -> None:
    settings = [s for s in v1_settings(Resources(memory=memory, memory_swap=swap), {}) if s.file in order]
    current = {("memory.limit_in_bytes", ""): "100", ("memory.memsw.limit_in_bytes", ""): "200"}
    assert [setting.file for setting in changes(settings, current)] == order


def test_only_what_differs_is_written_and_can_be_taken_back() -> None:
    settings = [s for s in v1_settings(Resources(cpu_shares=2, pids_limit=7), {}) if s.controller in ("cpu", "pids")]
    current = {
        ("cpu.shares", ""): "1024",
        ("cpu.cfs_period_us", ""): "100000",
        ("cpu.cfs_quota_us", ""): "-1",
        ("pids.max", ""): "7",
        ("blkio.throttle.read_bps_device", "8:0"): "5",
    }
    found = changes(settings, current)
    assert [setting.text for setting in found] == ["2", "8:0 0"]
    assert [undo_of(setting, current).text for setting in found] == ["1024", "8:0 5"]


def test_lines_of_devices() -> None:
    assert lines("default 100\n254:0 500\n8:16 rbps=1 wbps=max\n") == {"254:0": "500", "8:16": "rbps=1 wbps=max"}
    assert same("-1", "9223372036854771712")
    assert same("100", "default 100\n8:0 20")
    assert not same("-1", "4096")


def tree(root: Path) -> CgroupTree:
    """A directory for each controller, with the files of one cgroup `/c`."""
    contents = {
        "memory": {"memory.limit_in_bytes": "100", "memory.memsw.limit_in_bytes": "200"},
        "cpu": {"cpu.shares": "1024", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1"},
        "pids": {"pids.max": "max"},
    }
    for controller, files in contents.items():
        (root / controller / "c").mkdir(parents=True)
        for name, text in files.items():
            (root / controller / "c" / name).write_text(text + "\n")
    roots = {name: root / name for name in contents}
    return CgroupTree(hierarchies=tuple(roots.values()), controllers=roots)


def test_writing_takes_back_what_was_written_when_the_kernel_refuses(tmp_path: Path) -> None:
    writer = CgroupWriter(tree=tree(tmp_path), cgroups_path="/c", container_id="x")
    (tmp_path / "pids/c/pids.max").unlink()
    (tmp_path / "pids/c/pids.max").mkdir()  # a write of it fails
    with pytest.raises((FailedPrecondition, OSError)):
        writer.apply(Resources(memory=50, memory_swap=60, cpu_shares=5, pids_limit=3), {})
    assert (tmp_path / "memory/c/memory.limit_in_bytes").read_text() == "100\n"
    assert (tmp_path / "cpu/c/cpu.shares").read_text() == "1024\n"


def test_a_limit_without_its_controller_is_refused_by_name(tmp_path: Path) -> None:
    writer = CgroupWriter(tree=tree(tmp_path), cgroups_path="/c", container_id="x")
    with pytest.raises(FailedPrecondition, match=r"this node's kernel has no cpuset\.cpus"):
        writer.apply(Resources(cpuset_cpus="0"), {})
    writer.apply(Resources(memory=50, memory_swap=60), {})
    assert (tmp_path / "memory/c/memory.memsw.limit_in_bytes").read_text() == "60\n"


def test_devices_are_named_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    limits = tuple(DeviceNumber(path=path, value=1) for path in (str(tmp_path / "none"), str(tmp_path / "file")))
    with pytest.raises(InvalidArgument) as caught:
        block_devices(Resources(blkio_read_bps=limits))
    first, second = caught.value.violations
    assert first.field == "resources.blkio_device_read_bps[0].path"
    assert "is not on this node" in first.description
    assert "is no block device" in second.description


def test_features_of_v1(tmp_path: Path) -> None:
    for file in ("memory/memory.limit_in_bytes", "pids/cgroup.procs", "blkio/blkio.bfq.io_service_bytes"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "cpuset").mkdir()
    (tmp_path / "cpuset/cpuset.cpus").write_text("0-3\n")
    roots = {name: tmp_path / name for name in ("memory", "pids", "blkio", "cpuset")}
    found = probe_features(CgroupTree(hierarchies=tuple(roots.values()), controllers=roots))
    assert found.names == {"memory", "pids", "blkio_weight", "cpuset"}
    assert found.cpus == "0-3"


def test_features_of_v2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids io\n")
    (tmp_path / "cpuset.cpus.effective").write_text("0\n")
    group = tmp_path / "system.slice"
    group.mkdir()
    for file in ("memory.max", "memory.stat", "memory.swap.max", "cpu.weight", "cpu.max"):
        (group / file).touch()
    found = probe_features(CgroupTree(hierarchies=(tmp_path,)))
    assert found.names == {"memory", "memory_swap", "cpu_shares", "cpu_cfs", "pids", "blkio_throttle"}
    assert found.cpus == "0"


def test_a_parent_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    cgroups = CgroupTree(hierarchies=(tmp_path,))
    make_parents(cgroups, "/theirs/ours/" + "a" * 64, owner="/me")
    remove_all_parents(cgroups, owner="/me")
    assert (tmp_path / "theirs").is_dir()
