"""From a container's limits to `linux.resources` of the OCI `config.json` (runtime-spec 1.0.2, config-linux.md). Pure.

What stands there is what the specification has words for; the runtime writes it into the files of whichever cgroup
version the host has. Weights of disks and, with cgroup v2, of processors are left out: runtimes of different ages make
different numbers of them, or fail. `executor_service.oci.cgroup_limits` knows those.
"""

from __future__ import annotations

from executor_service.limits import DeviceNumber, Resources
from executor_service.oci.block_devices import BlockDevices


def oci_resources(
    resources: Resources, devices: BlockDevices, *, v2: bool, swap: bool = True
) -> dict[str, dict[str, object]]:
    """Nothing asked: empty. `swap`: the host accounts for swap."""
    found: dict[str, dict[str, object]] = {
        "memory": _memory(resources, v2=v2, swap=swap),
        "cpu": _cpu(resources, v2=v2),
        "pids": {"limit": resources.pids_limit} if resources.pids_limit > 0 else {},
        "blockIO": _block_io(resources, devices),
    }
    return {name: fields for name, fields in found.items() if fields}


def needs_more(resources: Resources, *, v2: bool) -> bool:
    """Whether something is asked for that the specification's fields leave out."""
    weights = resources.blkio_weight or resources.blkio_weight_device
    return bool(weights) or (v2 and resources.cpu_shares > 0)


def _memory(resources: Resources, *, v2: bool, swap: bool) -> dict[str, object]:
    fields = {
        "limit": resources.memory,
        "reservation": resources.memory_reservation,
        "swap": resources.memory_swap if swap else 0,
    }
    memory: dict[str, object] = {name: value for name, value in fields.items() if value}
    if resources.memory_swappiness is not None and not v2:
        memory["swappiness"] = resources.memory_swappiness
    return memory


def _cpu(resources: Resources, *, v2: bool) -> dict[str, object]:
    fields: dict[str, object] = {
        "shares": 0 if v2 else resources.cpu_shares,
        "period": resources.cpu_period,
        "quota": resources.cpu_quota,
        "cpus": resources.cpuset_cpus,
        "mems": resources.cpuset_mems,
    }
    return {name: value for name, value in fields.items() if value}


def _block_io(resources: Resources, devices: BlockDevices) -> dict[str, object]:
    fields = {
        "throttleReadBpsDevice": resources.blkio_read_bps,
        "throttleWriteBpsDevice": resources.blkio_write_bps,
        "throttleReadIOPSDevice": resources.blkio_read_iops,
        "throttleWriteIOPSDevice": resources.blkio_write_iops,
    }
    return {name: _throttles(limits, devices) for name, limits in fields.items() if limits}


def _throttles(limits: tuple[DeviceNumber, ...], devices: BlockDevices) -> list[dict[str, int]]:
    return [{"major": devices[limit.path][0], "minor": devices[limit.path][1], "rate": limit.value} for limit in limits]
