"""What containers use, and their processes, as a node tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStats:
    """As the container sees it."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_dropped: int = 0
    rx_errors: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_dropped: int = 0
    tx_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStats:
    """Times in nanoseconds, sizes in bytes; a limit of 0 is none. `interfaces` by name."""

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
    interfaces: tuple[tuple[str, InterfaceStats], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Fields mean what the protocol's do; times in nanoseconds, `memory` in bytes."""

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
