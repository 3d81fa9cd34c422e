"""Between the messages about limits and devices and the records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slipway.v1 import resources_pb2 as pb2

from api_service.records.resources import DeviceMapping, DeviceNumber, DeviceRequest, Resources, Ulimit


def resources_from_proto(message: pb2.Resources) -> Resources:
    return Resources(
        memory=message.memory,
        memory_reservation=message.memory_reservation,
        memory_swap=message.memory_swap,
        memory_swappiness=message.memory_swappiness if message.HasField("memory_swappiness") else None,
        cpu_shares=message.cpu_shares,
        nano_cpus=message.nano_cpus,
        cpu_period=message.cpu_period,
        cpu_quota=message.cpu_quota,
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        pids_limit=message.pids_limit if message.HasField("pids_limit") else None,
        blkio_weight=message.blkio_weight,
        blkio_weight_device=tuple(
            DeviceNumber(path=device.path, value=device.weight) for device in message.blkio_weight_device
        ),
        blkio_device_read_bps=_throttles_from_proto(message.blkio_device_read_bps),
        blkio_device_write_bps=_throttles_from_proto(message.blkio_device_write_bps),
        blkio_device_read_iops=_throttles_from_proto(message.blkio_device_read_iops),
        blkio_device_write_iops=_throttles_from_proto(message.blkio_device_write_iops),
    )


def resources_to_proto(resources: Resources) -> pb2.Resources:
    return pb2.Resources(
        memory=resources.memory,
        memory_reservation=resources.memory_reservation,
        memory_swap=resources.memory_swap,
        memory_swappiness=resources.memory_swappiness,
        cpu_shares=resources.cpu_shares,
        nano_cpus=resources.nano_cpus,
        cpu_period=resources.cpu_period,
        cpu_quota=resources.cpu_quota,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        pids_limit=resources.pids_limit,
        blkio_weight=resources.blkio_weight,
        blkio_weight_device=[
            pb2.WeightDevice(path=device.path, weight=device.value) for device in resources.blkio_weight_device
        ],
        blkio_device_read_bps=_throttles_to_proto(resources.blkio_device_read_bps),
        blkio_device_write_bps=_throttles_to_proto(resources.blkio_device_write_bps),
        blkio_device_read_iops=_throttles_to_proto(resources.blkio_device_read_iops),
        blkio_device_write_iops=_throttles_to_proto(resources.blkio_device_write_iops),
    )


def _throttles_from_proto(messages: Iterable[pb2.ThrottleDevice]) -> tuple[DeviceNumber, ...]:
    return tuple(DeviceNumber(path=message.path, value=message.rate) for message in messages)


def _throttles_to_proto(devices: Sequence[DeviceNumber]) -> list[pb2.ThrottleDevice]:
    return [pb2.ThrottleDevice(path=device.path, rate=device.value) for device in devices]


def device_from_proto(message: pb2.DeviceMapping) -> DeviceMapping:
    return DeviceMapping(
        path_on_host=message.path_on_host,
        path_in_container=message.path_in_container,
        cgroup_permissions=message.cgroup_permissions,
    )


def device_to_proto(device: DeviceMapping) -> pb2.DeviceMapping:
    return pb2.DeviceMapping(
        path_on_host=device.path_on_host,
        path_in_container=device.path_in_container,
        cgroup_permissions=device.cgroup_permissions,
    )


def device_request_from_proto(message: pb2.DeviceRequest) -> DeviceRequest:
    return DeviceRequest(driver=message.driver, device_ids=tuple(message.device_ids))


def device_request_to_proto(request: DeviceRequest) -> pb2.DeviceRequest:
    return pb2.DeviceRequest(driver=request.driver, device_ids=request.device_ids)


def ulimit_from_proto(message: pb2.Ulimit) -> Ulimit:
    return Ulimit(name=message.name, soft=message.soft, hard=message.hard)


def ulimit_to_proto(limit: Ulimit) -> pb2.Ulimit:
    return pb2.Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard)
