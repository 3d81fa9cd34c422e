"""Between the messages about how a container runs on its node and the records."""

from __future__ import annotations

from slipway.v1 import container_pb2 as pb2

from api_service.conversion.console_size import size_from_proto, size_to_proto
from api_service.conversion.mounts import mount_from_proto, mount_to_proto
from api_service.conversion.networking import port_bindings_from_proto, port_bindings_to_proto
from api_service.conversion.resources import (
    device_from_proto,
    device_request_from_proto,
    device_request_to_proto,
    device_to_proto,
    resources_from_proto,
    resources_to_proto,
    ulimit_from_proto,
    ulimit_to_proto,
)
from api_service.conversion.times import duration, nanoseconds
from api_service.records.config import Dependency, HostConfig, LogConfig, Placement, RestartPolicy


def host_config_from_proto(message: pb2.HostConfig) -> HostConfig:
    return HostConfig(
        network_mode=message.network_mode,
        dns=tuple(message.dns),
        dns_search=tuple(message.dns_search),
        dns_options=tuple(message.dns_options),
        extra_hosts=tuple(message.extra_hosts),
        auto_remove=message.auto_remove,
        log_config=LogConfig(type=message.log_config.type, config=dict(message.log_config.config)),
        runtime=message.runtime,
        readonly_rootfs=message.readonly_rootfs,
        shm_size=message.shm_size,
        annotations=dict(message.annotations),
        resources=resources_from_proto(message.resources),
        binds=tuple(message.binds),
        mounts=tuple(map(mount_from_proto, message.mounts)),
        tmpfs=dict(message.tmpfs),
        volumes_from=tuple(message.volumes_from),
        restart_policy=restart_policy_from_proto(message.restart_policy),
        depends_on=tuple(map(_dependency_from_proto, message.depends_on)),
        cap_add=tuple(message.cap_add),
        cap_drop=tuple(message.cap_drop),
        privileged=message.privileged,
        security_opt=tuple(message.security_opt),
        masked_paths=tuple(message.masked_paths.paths) if message.HasField("masked_paths") else None,
        readonly_paths=tuple(message.readonly_paths.paths) if message.HasField("readonly_paths") else None,
        group_add=tuple(message.group_add),
        ipc_mode=message.ipc_mode,
        pid_mode=message.pid_mode,
        uts_mode=message.uts_mode,
        userns_mode=message.userns_mode,
        cgroupns_mode=message.cgroupns_mode,
        cgroup_parent=message.cgroup_parent,
        sysctls=dict(message.sysctls),
        ulimits=tuple(map(ulimit_from_proto, message.ulimits)),
        devices=tuple(map(device_from_proto, message.devices)),
        device_cgroup_rules=tuple(message.device_cgroup_rules),
        device_requests=tuple(map(device_request_from_proto, message.device_requests)),
        oom_score_adj=message.oom_score_adj,
        init=message.init if message.HasField("init") else None,
        console_size=size_from_proto(message.console_size) if message.HasField("console_size") else None,
        port_bindings=port_bindings_from_proto(message.port_bindings),
        publish_all_ports=message.publish_all_ports,
        storage_opt=dict(message.storage_opt),
        placement=_placement_from_proto(message.placement),
        reschedule=message.reschedule if message.reschedule != "no" else "",
    )


def host_config_to_proto(host: HostConfig) -> pb2.HostConfig:
    return pb2.HostConfig(
        network_mode=host.network_mode,
        dns=host.dns,
        dns_search=host.dns_search,
        dns_options=host.dns_options,
        extra_hosts=host.extra_hosts,
        auto_remove=host.auto_remove,
        log_config=pb2.LogConfig(type=host.log_config.type, config=dict(host.log_config.config)),
        runtime=host.runtime,
        readonly_rootfs=host.readonly_rootfs,
        shm_size=host.shm_size,
        annotations=dict(host.annotations),
        resources=resources_to_proto(host.resources),
        binds=host.binds,
        mounts=map(mount_to_proto, host.mounts),
        tmpfs=dict(host.tmpfs),
        volumes_from=host.volumes_from,
        restart_policy=_restart_policy_to_proto(host.restart_policy),
        depends_on=map(_dependency_to_proto, host.depends_on),
        cap_add=host.cap_add,
        cap_drop=host.cap_drop,
        privileged=host.privileged,
        security_opt=host.security_opt,
        masked_paths=_paths_to_proto(host.masked_paths),
        readonly_paths=_paths_to_proto(host.readonly_paths),
        group_add=host.group_add,
        ipc_mode=host.ipc_mode,
        pid_mode=host.pid_mode,
        uts_mode=host.uts_mode,
        userns_mode=host.userns_mode,
        cgroupns_mode=host.cgroupns_mode,
        cgroup_parent=host.cgroup_parent,
        sysctls=dict(host.sysctls),
        ulimits=map(ulimit_to_proto, host.ulimits),
        devices=map(device_to_proto, host.devices),
        device_cgroup_rules=host.device_cgroup_rules,
        device_requests=map(device_request_to_proto, host.device_requests),
        oom_score_adj=host.oom_score_adj,
        init=host.init,
        console_size=size_to_proto(host.console_size),
        port_bindings=port_bindings_to_proto(host.port_bindings),
        publish_all_ports=host.publish_all_ports,
        storage_opt=dict(host.storage_opt),
        placement=_placement_to_proto(host.placement) if host.placement != Placement() else None,
        reschedule=host.reschedule,
    )


def _dependency_from_proto(message: pb2.Dependency) -> Dependency:
    return Dependency(container=message.container, condition=message.condition, timeout=nanoseconds(message.timeout))


def _dependency_to_proto(dependency: Dependency) -> pb2.Dependency:
    return pb2.Dependency(
        container=dependency.container, condition=dependency.condition, timeout=duration(dependency.timeout)
    )


def _placement_from_proto(message: pb2.Placement) -> Placement:
    return Placement(
        constraints=tuple(message.constraints),
        reserve_memory=message.reserve_memory,
        reserve_nano_cpus=message.reserve_nano_cpus,
        pack=message.strategy == pb2.PLACEMENT_STRATEGY_PACK,
    )


def _placement_to_proto(placement: Placement) -> pb2.Placement:
    return pb2.Placement(
        constraints=placement.constraints,
        reserve_memory=placement.reserve_memory,
        reserve_nano_cpus=placement.reserve_nano_cpus,
        strategy=pb2.PLACEMENT_STRATEGY_PACK if placement.pack else pb2.PLACEMENT_STRATEGY_SPREAD,
    )


def restart_policy_from_proto(message: pb2.RestartPolicy) -> RestartPolicy:
    return RestartPolicy(
        name=message.name,
        maximum_retry_count=message.maximum_retry_count,
        on_unhealthy=message.on_unhealthy,
        initial_delay=nanoseconds(message.initial_delay),
        max_delay=nanoseconds(message.max_delay),
        multiplier=message.multiplier,
        reset_after=nanoseconds(message.reset_after),
    )


def _restart_policy_to_proto(policy: RestartPolicy) -> pb2.RestartPolicy:
    return pb2.RestartPolicy(
        name=policy.name,
        maximum_retry_count=policy.maximum_retry_count,
        on_unhealthy=policy.on_unhealthy,
        initial_delay=duration(policy.initial_delay),
        max_delay=duration(policy.max_delay),
        multiplier=policy.multiplier,
        reset_after=duration(policy.reset_after),
    )


def _paths_to_proto(paths: tuple[str, ...] | None) -> pb2.PathList | None:
    return pb2.PathList(paths=paths) if paths is not None else None
