"""What containers use, and their processes."""

from __future__ import annotations

from slipway.executor.v1 import runtime_service_pb2 as pb2

from executor_service.conversion.times import timestamp
from executor_service.stats import ContainerStats, ProcessInfo


def stats_to_proto(stats: ContainerStats) -> pb2.ContainerStats:
    return pb2.ContainerStats(
        container_id=stats.container_id,
        time=timestamp(stats.time),
        cpu_usage=stats.cpu_usage,
        cpu_system=stats.cpu_system,
        throttled_periods=stats.throttled_periods,
        throttled_time=stats.throttled_time,
        memory_usage=stats.memory_usage,
        memory_limit=stats.memory_limit,
        memory_cache=stats.memory_cache,
        pids=stats.pids,
        pids_limit=stats.pids_limit,
        blkio_read=stats.blkio_read,
        blkio_write=stats.blkio_write,
        interfaces=[
            pb2.InterfaceStats(
                name=interface.name,
                rx_bytes=interface.rx_bytes,
                rx_packets=interface.rx_packets,
                rx_dropped=interface.rx_dropped,
                rx_errors=interface.rx_errors,
                tx_bytes=interface.tx_bytes,
                tx_packets=interface.tx_packets,
                tx_dropped=interface.tx_dropped,
                tx_errors=interface.tx_errors,
            )
            for interface in stats.interfaces
        ],
    )


def process_to_proto(process: ProcessInfo) -> pb2.ProcessInfo:
    return pb2.ProcessInfo(
        pid=process.pid,
        container_pid=process.container_pid,
        parent_pid=process.parent_pid,
        uid=process.uid,
        state=process.state,
        threads=process.threads,
        started_at=timestamp(process.started_at),
        cpu_time=process.cpu_time,
        memory=process.memory,
        command=process.command,
    )
