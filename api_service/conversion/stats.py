"""What containers use, as clients are told."""

from __future__ import annotations

from collections.abc import Iterable

from slipway.v1 import container_service_pb2 as pb2

from api_service.conversion.times import timestamp
from api_service.executor_client.stats import InterfaceStats, Process
from api_service.operations.container_stats import Sample


def samples_to_proto(samples: Iterable[Sample]) -> pb2.StreamStatsResponse:
    return pb2.StreamStatsResponse(containers=map(_sample_to_proto, samples))


def _sample_to_proto(sample: Sample) -> pb2.ContainerStats:
    stats = sample.stats
    return pb2.ContainerStats(
        id=stats.container_id,
        name=sample.name,
        time=timestamp(stats.time),
        cpu_usage=stats.cpu_usage,
        cpu_system=stats.cpu_system,
        throttled_periods=stats.throttled_periods,
        throttled_time=stats.throttled_time,
        online_cpus=sample.online_cpus,
        cpu_percent=sample.cpu_percent,
        memory_usage=stats.memory_usage,
        memory_limit=sample.memory_limit,
        memory_cache=stats.memory_cache,
        pids=stats.pids,
        pids_limit=stats.pids_limit,
        blkio_read=stats.blkio_read,
        blkio_write=stats.blkio_write,
        networks={name: _interface_to_proto(interface) for name, interface in stats.interfaces},
    )


def _interface_to_proto(interface: InterfaceStats) -> pb2.InterfaceStats:
    return pb2.InterfaceStats(
        rx_bytes=interface.rx_bytes,
        rx_packets=interface.rx_packets,
        rx_dropped=interface.rx_dropped,
        rx_errors=interface.rx_errors,
        tx_bytes=interface.tx_bytes,
        tx_packets=interface.tx_packets,
        tx_dropped=interface.tx_dropped,
        tx_errors=interface.tx_errors,
    )


def process_to_proto(process: Process) -> pb2.Process:
    return pb2.Process(
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
