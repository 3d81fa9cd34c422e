"""A container as an executor is asked to lay it out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration
from slipway.executor.v1 import container_spec_pb2 as pb2

from api_service.executor_client.container_spec import (
    ContainerSpec,
    DependencyCondition,
    EndpointSpec,
    ExecProbe,
    HealthCheck,
    NamespaceMode,
    NetworkMode,
    NodeDependency,
    PublishedPort,
    Rlimit,
    Seccomp,
)
from api_service.records.config import RestartPolicy
from api_service.records.health import GrpcProbe, HttpProbe, TcpProbe
from api_service.records.mount import MountPoint, MountType
from api_service.records.resources import DeviceNumber, Resources

_NETWORK_MODES = {
    NetworkMode.BRIDGE: pb2.NETWORK_MODE_BRIDGE,
    NetworkMode.HOST: pb2.NETWORK_MODE_HOST,
    NetworkMode.NONE: pb2.NETWORK_MODE_NONE,
    NetworkMode.CONTAINER: pb2.NETWORK_MODE_CONTAINER,
}
_MOUNT_TYPES = {
    MountType.BIND: pb2.MOUNT_TYPE_BIND,
    MountType.VOLUME: pb2.MOUNT_TYPE_VOLUME,
    MountType.TMPFS: pb2.MOUNT_TYPE_TMPFS,
    MountType.IMAGE: pb2.MOUNT_TYPE_IMAGE,
}
_SECCOMP = {
    Seccomp.DEFAULT: pb2.SECCOMP_UNSPECIFIED,
    Seccomp.UNCONFINED: pb2.SECCOMP_UNCONFINED,
    Seccomp.PROFILE: pb2.SECCOMP_PROFILE,
}
_NAMESPACE_MODES = {
    NamespaceMode.PRIVATE: pb2.NAMESPACE_MODE_UNSPECIFIED,
    NamespaceMode.SHAREABLE: pb2.NAMESPACE_MODE_SHAREABLE,
    NamespaceMode.HOST: pb2.NAMESPACE_MODE_HOST,
    NamespaceMode.CONTAINER: pb2.NAMESPACE_MODE_CONTAINER,
    NamespaceMode.NONE: pb2.NAMESPACE_MODE_NONE,
}
_RESTART_CONDITIONS = {
    "no": pb2.RESTART_CONDITION_UNSPECIFIED,
    "always": pb2.RESTART_CONDITION_ALWAYS,
    "unless-stopped": pb2.RESTART_CONDITION_UNLESS_STOPPED,
    "on-failure": pb2.RESTART_CONDITION_ON_FAILURE,
}
_PROTOCOLS = {
    "tcp": pb2.PORT_PROTOCOL_TCP,
    "udp": pb2.PORT_PROTOCOL_UDP,
    "sctp": pb2.PORT_PROTOCOL_SCTP,
}
_DEPENDENCY_CONDITIONS = {
    DependencyCondition.STARTED: pb2.DEPENDENCY_CONDITION_STARTED,
    DependencyCondition.HEALTHY: pb2.DEPENDENCY_CONDITION_HEALTHY,
    DependencyCondition.COMPLETED: pb2.DEPENDENCY_CONDITION_COMPLETED,
}


def spec_to_proto(spec: ContainerSpec) -> pb2.ContainerSpec:
    message = pb2.ContainerSpec(
        id=spec.id,
        image_id=spec.image_id,
        args=spec.args,
        env=spec.env,
        working_dir=spec.working_dir,
        user=spec.user,
        group_add=spec.group_add,
        hostname=spec.hostname,
        domainname=spec.domainname,
        terminal=spec.terminal,
        open_stdin=spec.open_stdin,
        stdin_once=spec.stdin_once,
        readonly_rootfs=spec.readonly_rootfs,
        shm_size=spec.shm_size,
        network_mode=_NETWORK_MODES[spec.network_mode],
        endpoints=[endpoint_to_proto(endpoint) for endpoint in spec.endpoints],
        network_container=spec.network_container,
        dns_servers=spec.dns_servers,
        dns_search=spec.dns_search,
        dns_options=spec.dns_options,
        extra_hosts=[pb2.HostEntry(name=name, address=address) for name, address in spec.extra_hosts],
        log_max_size=spec.log_max_size,
        log_max_files=spec.log_max_files,
        log_disabled=spec.log_disabled,
        log_buffer_size=spec.log_buffer_size,
        root_size=spec.root_size,
        runtime=spec.runtime,
        annotations=dict(spec.annotations),
        resources=resources_to_proto(spec.resources),
        cgroup_parent=spec.cgroup_parent,
        mounts=[_mount(mount) for mount in spec.mounts],
        sysctls=dict(spec.sysctls),
        rlimits=map(_rlimit, spec.rlimits),
        oom_score_adj=spec.oom_score_adj,
        init=spec.init,
        stop_signal=spec.stop_signal,
        stop_timeout=spec.stop_timeout,
        restart_policy=restart_policy_to_proto(spec.restart_policy),
        dependencies=map(_dependency, spec.dependencies),
        published_ports=published_ports_to_proto(spec.published_ports),
        leased=spec.leased,
    )
    _set_security(spec, message)
    _set_namespaces(spec, message)
    _set_devices(spec, message)
    if spec.terminal_size is not None:
        size = spec.terminal_size
        message.terminal_size.CopyFrom(pb2.TerminalSize(height=size.height, width=size.width))
    if spec.health_check is not None:
        message.health_check.CopyFrom(_health_check(spec.health_check))
    return message


def published_ports_to_proto(ports: Iterable[PublishedPort]) -> list[pb2.PublishedPort]:
    return [
        pb2.PublishedPort(
            host_ip=port.host_ip,
            host_port=port.host_port,
            host_port_last=port.host_port_last,
            container_port=port.container_port,
            protocol=_PROTOCOLS[port.protocol],
        )
        for port in ports
    ]


def resources_to_proto(resources: Resources) -> pb2.Resources:
    """Of resources whose `nano_cpus` were turned into period and quota."""
    return pb2.Resources(
        memory=resources.memory,
        memory_reservation=resources.memory_reservation,
        memory_swap=resources.memory_swap,
        memory_swappiness=resources.memory_swappiness,
        cpu_shares=resources.cpu_shares,
        cpu_period=resources.cpu_period,
        cpu_quota=resources.cpu_quota,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        pids_limit=resources.pids_limit or 0,
        blkio_weight=resources.blkio_weight,
        blkio_weight_device=_numbers(resources.blkio_weight_device),
        blkio_read_bps=_numbers(resources.blkio_device_read_bps),
        blkio_write_bps=_numbers(resources.blkio_device_write_bps),
        blkio_read_iops=_numbers(resources.blkio_device_read_iops),
        blkio_write_iops=_numbers(resources.blkio_device_write_iops),
    )


def restart_policy_to_proto(policy: RestartPolicy) -> pb2.RestartPolicy:
    """Of a policy that has its defaults."""
    return pb2.RestartPolicy(
        condition=_RESTART_CONDITIONS[policy.name],
        maximum_retry_count=policy.maximum_retry_count,
        on_unhealthy=policy.on_unhealthy,
        initial_delay=_duration(policy.initial_delay),
        max_delay=_duration(policy.max_delay),
        multiplier=policy.multiplier,
        reset_after=_duration(policy.reset_after),
    )


def endpoint_to_proto(endpoint: EndpointSpec) -> pb2.EndpointSpec:
    return pb2.EndpointSpec(
        network_id=endpoint.network_id,
        mac_address=endpoint.mac_address,
        ipv4_address=endpoint.ipv4_address,
        ipv6_address=endpoint.ipv6_address,
        dns_names=endpoint.dns_names,
        gateway_priority=endpoint.gateway_priority,
    )


def _mount(mount: MountPoint) -> pb2.Mount:
    return pb2.Mount(
        type=_MOUNT_TYPES[mount.type],
        source=mount.source,
        target=mount.destination,
        read_only=mount.read_only,
        read_only_non_recursive=mount.read_only_non_recursive,
        read_only_force_recursive=mount.read_only_force_recursive,
        propagation=mount.propagation,
        non_recursive=mount.non_recursive,
        create_source=mount.create_source,
        populate=mount.populate,
        subpath=mount.subpath,
        options=mount.options,
    )


def _rlimit(limit: Rlimit) -> pb2.Rlimit:
    return pb2.Rlimit(name=limit.name, soft=limit.soft, hard=limit.hard)


def _dependency(dependency: NodeDependency) -> pb2.Dependency:
    return pb2.Dependency(
        container_id=dependency.container_id,
        condition=_DEPENDENCY_CONDITIONS[dependency.condition],
        timeout=_duration(dependency.timeout),
    )


def _set_security(spec: ContainerSpec, message: pb2.ContainerSpec) -> None:
    security = spec.security
    message.capabilities.extend(security.capabilities)
    message.privileged = security.privileged
    message.no_new_privileges = security.no_new_privileges
    message.seccomp = _SECCOMP[security.seccomp]
    message.seccomp_profile = security.seccomp_profile
    message.apparmor_profile = security.apparmor_profile
    message.writable_cgroups = security.writable_cgroups
    if security.masked_paths is not None:
        message.masked_paths.CopyFrom(pb2.Paths(paths=security.masked_paths))
    if security.readonly_paths is not None:
        message.readonly_paths.CopyFrom(pb2.Paths(paths=security.readonly_paths))


def _set_namespaces(spec: ContainerSpec, message: pb2.ContainerSpec) -> None:
    namespaces = spec.namespaces
    message.ipc_mode = _NAMESPACE_MODES[namespaces.ipc]
    message.ipc_container = namespaces.ipc_container
    message.pid_mode = _NAMESPACE_MODES[namespaces.pid]
    message.pid_container = namespaces.pid_container
    message.host_uts = namespaces.host_uts
    message.private_cgroupns = namespaces.private_cgroup
    message.remapped = namespaces.remapped_users
    message.node_users = namespaces.node_users


def _set_devices(spec: ContainerSpec, message: pb2.ContainerSpec) -> None:
    for device in spec.devices:
        message.devices.add(
            source=device.path_on_host, target=device.path_in_container, permissions=device.cgroup_permissions
        )
    message.cdi_devices.extend(spec.cdi_devices)
    for rule in spec.device_rules:
        message.device_rules.add(type=rule.type, major=rule.major, minor=rule.minor, permissions=rule.permissions)


def _numbers(devices: Sequence[DeviceNumber]) -> list[pb2.DeviceNumber]:
    return [pb2.DeviceNumber(path=device.path, value=device.value) for device in devices]


def _health_check(check: HealthCheck) -> pb2.HealthCheck:
    message = pb2.HealthCheck(
        interval=_duration(check.interval),
        timeout=_duration(check.timeout),
        start_period=_duration(check.start_period),
        start_interval=_duration(check.start_interval),
        retries=check.retries,
    )
    match check.probe:
        case ExecProbe(args=args):
            message.exec.CopyFrom(pb2.ExecProbe(args=args))
        case HttpProbe(port=port, path=path, headers=headers):
            message.http.CopyFrom(pb2.HttpProbe(port=port, path=path, headers=dict(headers)))
        case TcpProbe(port=port):
            message.tcp.CopyFrom(pb2.TcpProbe(port=port))
        case GrpcProbe(port=port, service=service):
            message.grpc.CopyFrom(pb2.GrpcProbe(port=port, service=service))
    return message


def _duration(nanoseconds: int) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(nanoseconds)
    return duration
