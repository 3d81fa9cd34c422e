"""What a container may use of its node, as asked for at create or by an update; 0 and None mean not given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNumber:
    """`path` of a block device; `value`: a weight, bytes or operations a second."""

    path: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Bytes, microseconds, and 1e-9 processors (`nano_cpus`). `memory_swap`: memory and swap together, -1 without
    bound. `cpu_quota`, `pids_limit`: -1 without bound."""

    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    cpu_shares: int = 0
    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceNumber, ...] = ()
    blkio_device_read_bps: tuple[DeviceNumber, ...] = ()
    blkio_device_write_bps: tuple[DeviceNumber, ...] = ()
    blkio_device_read_iops: tuple[DeviceNumber, ...] = ()
    blkio_device_write_iops: tuple[DeviceNumber, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """`name` as in setrlimit(2) without its prefix, lower case: `nofile`. -1: unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """`device_ids`: `vendor/class=name`."""

    driver: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMapping:
    """`path_in_container`: empty means the same path. `cgroup_permissions`: of `rwm`, empty means all."""

    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = ""
