"""What a container may use, in the executor's own words. 0 and None mean no limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNumber:
    """A block device by its path, and a weight, or bytes or operations a second."""

    path: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Bytes and microseconds. `memory_swap` is memory and swap together; it, `cpu_quota` and `pids_limit` are -1 for
    no bound."""

    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceNumber, ...] = ()
    blkio_read_bps: tuple[DeviceNumber, ...] = ()
    blkio_write_bps: tuple[DeviceNumber, ...] = ()
    blkio_read_iops: tuple[DeviceNumber, ...] = ()
    blkio_write_iops: tuple[DeviceNumber, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """`name` is setrlimit(2)'s, `RLIMIT_NOFILE`; -1 is unlimited."""

    name: str
    soft: int
    hard: int
