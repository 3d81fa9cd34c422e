"""What a container uses, and its processes, in the executor's own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStats:
    """Counters of one network interface, as the container sees them."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_dropped: int
    rx_errors: int
    tx_bytes: int
    tx_packets: int
    tx_dropped: int
    tx_errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStats:
    """Times and `time`, since the epoch, in nanoseconds, sizes in bytes. A limit of 0 is none. `memory_usage` is
    without the page cache that can be dropped; `blkio_*` are bytes."""

    container_id: str
    time: int
    cpu_usage: int = 0
    cpu_system: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    memory_usage: int = 0
    memory_limit: int = 0
    memory_cache: int = 0
    pids: int = 0
    pids_limit: int = 0
    blkio_read: int = 0
    blkio_write: int = 0
    interfaces: tuple[InterfaceStats, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """`container_pid` is 0 for one without an id inside the container. `state` as in proc_pid_stat(5), `started_at` and
    `cpu_time` in nanoseconds, `memory` in bytes."""

    pid: int
    container_pid: int
    parent_pid: int
    uid: int
    state: str
    threads: int
    started_at: int
    cpu_time: int
    memory: int
    command: tuple[str, ...]
