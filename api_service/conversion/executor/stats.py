"""What containers use, and their processes."""

from __future__ import annotations

from slipway.executor.v1 import runtime_service_pb2 as pb2

from api_service.executor_client.stats import ContainerStats, InterfaceStats, Process


def stats_from_proto(message: pb2.ContainerStats) -> ContainerStats:
    return ContainerStats(
        container_id=message.container_id,
        time=message.time.ToNanoseconds(),
        cpu_usage=message.cpu_usage,
        cpu_system=message.cpu_system,
        throttled_periods=message.throttled_periods,
        throttled_time=message.throttled_time,
        memory_usage=message.memory_usage,
        memory_limit=message.memory_limit,
        memory_cache=message.memory_cache,
        pids=message.pids,
        pids_limit=message.pids_limit,
        blkio_read=message.blkio_read,
        blkio_write=message.blkio_write,
        interfaces=tuple((interface.name, _interface_from_proto(interface)) for interface in message.interfaces),
    )


def _interface_from_proto(message: pb2.InterfaceStats) -> InterfaceStats:
    return InterfaceStats(
        rx_bytes=message.rx_bytes,
        rx_packets=message.rx_packets,
        rx_dropped=message.rx_dropped,
        rx_errors=message.rx_errors,
        tx_bytes=message.tx_bytes,
        tx_packets=message.tx_packets,
        tx_dropped=message.tx_dropped,
        tx_errors=message.tx_errors,
    )


def process_from_proto(message: pb2.ProcessInfo) -> Process:
    return Process(
        pid=message.pid,
        container_pid=message.container_pid,
        parent_pid=message.parent_pid,
        uid=message.uid,
        state=message.state,
        threads=message.threads,
        started_at=message.started_at.ToNanoseconds(),
        cpu_time=message.cpu_time,
        memory=message.memory,
        command=tuple(message.command),
    )
