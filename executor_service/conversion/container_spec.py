"""Specifications of containers. What is out of range stays so: the rules judge it
(`executor_service.operations.container_rules`)."""

from __future__ import annotations

from collections.abc import Iterable

from slipway.executor.v1 import container_spec_pb2 as pb2

from common.errors import InvalidArgument, Violation
from executor_service.container import (
    ContainerSpec,
    Device,
    DeviceRule,
    EndpointSpec,
    LogLimits,
    NameResolution,
    NamespaceMode,
    Namespaces,
    NetworkMode,
    Seccomp,
    Security,
    TerminalSize,
)
from executor_service.conversion.supervision import (
    DEPENDENCY_CONDITIONS,
    RESTART_CONDITIONS,
    dependency_from_proto,
    health_check_from_proto,
    restart_policy_from_proto,
)
from executor_service.limits import DeviceNumber, Resources, Rlimit
from executor_service.mounts import Mount, MountType
from executor_service.operations.container_rules import violations
from executor_service.ports import PortProtocol, PublishedPort

_NETWORK_MODES = {
    pb2.NETWORK_MODE_BRIDGE: NetworkMode.BRIDGE,
    pb2.NETWORK_MODE_HOST: NetworkMode.HOST,
    pb2.NETWORK_MODE_NONE: NetworkMode.NONE,
    pb2.NETWORK_MODE_CONTAINER: NetworkMode.CONTAINER,
}
_MOUNT_TYPES = {
    pb2.MOUNT_TYPE_BIND: MountType.BIND,
    pb2.MOUNT_TYPE_VOLUME: MountType.VOLUME,
    pb2.MOUNT_TYPE_TMPFS: MountType.TMPFS,
    pb2.MOUNT_TYPE_IMAGE: MountType.IMAGE,
}
_SECCOMP = {
    pb2.SECCOMP_UNSPECIFIED: Seccomp.DEFAULT,
    pb2.SECCOMP_UNCONFINED: Seccomp.UNCONFINED,
    pb2.SECCOMP_PROFILE: Seccomp.PROFILE,
}
_NAMESPACE_MODES = {
    pb2.NAMESPACE_MODE_UNSPECIFIED: NamespaceMode.PRIVATE,
    pb2.NAMESPACE_MODE_SHAREABLE: NamespaceMode.SHAREABLE,
    pb2.NAMESPACE_MODE_HOST: NamespaceMode.HOST,
    pb2.NAMESPACE_MODE_CONTAINER: NamespaceMode.CONTAINER,
    pb2.NAMESPACE_MODE_NONE: NamespaceMode.NONE,
}
_PROTOCOLS = {
    pb2.PORT_PROTOCOL_TCP: PortProtocol.TCP,
    pb2.PORT_PROTOCOL_UDP: PortProtocol.UDP,
    pb2.PORT_PROTOCOL_SCTP: PortProtocol.SCTP,
}


def spec_from_proto(message: pb2.ContainerSpec) -> ContainerSpec:
    """Raises InvalidArgument, with every other broken rule too, for a word of an enum that this version lacks."""
    unknown = list(_unknown_words(message))
    spec = ContainerSpec(
        id=message.id,
        image_id=message.image_id,
        args=tuple(message.args),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        hostname=message.hostname,
        domainname=message.domainname,
        terminal=message.terminal,
        readonly_rootfs=message.readonly_rootfs,
        shm_size=message.shm_size,
        network_mode=_NETWORK_MODES.get(message.network_mode, NetworkMode.BRIDGE),
        endpoints=tuple(endpoint_from_proto(endpoint) for endpoint in message.endpoints),
        network_container=message.network_container,
        names=_names(message),
        log=_log(message),
        runtime=message.runtime,
        annotations=dict(message.annotations),
        resources=resources_from_proto(message.resources),
        cgroup_parent=message.cgroup_parent,
        mounts=tuple(_mount(mount) for mount in message.mounts),
        security=_security(message),
        namespaces=_namespaces(message),
        remapped=message.remapped,
        node_users=message.node_users,
        group_add=tuple(message.group_add),
        sysctls=dict(message.sysctls),
        rlimits=tuple(map(_rlimit, message.rlimits)),
        devices=tuple(map(_device, message.devices)),
        device_rules=tuple(map(_device_rule, message.device_rules)),
        root_size=message.root_size,
        cdi_devices=tuple(message.cdi_devices),
        oom_score_adj=message.oom_score_adj,
        init=message.init,
        terminal_size=size_from_proto(message.terminal_size) if message.HasField("terminal_size") else None,
        open_stdin=message.open_stdin,
        stdin_once=message.stdin_once,
        stop_signal=message.stop_signal,
        stop_timeout=message.stop_timeout,
        restart_policy=restart_policy_from_proto(message.restart_policy),
        health_check=health_check_from_proto(message.health_check) if message.HasField("health_check") else None,
        dependencies=tuple(dependency_from_proto(dependency) for dependency in message.dependencies),
        published_ports=tuple(_published_port(port) for port in message.published_ports),
        leased=message.leased,
    )
    if unknown:
        raise InvalidArgument(violations=[*unknown, *violations(spec)])
    return spec


def endpoint_from_proto(message: pb2.EndpointSpec) -> EndpointSpec:
    return EndpointSpec(
        network_id=message.network_id,
        mac_address=message.mac_address,
        ipv4_address=message.ipv4_address,
        ipv6_address=message.ipv6_address,
        dns_names=tuple(message.dns_names),
        gateway_priority=message.gateway_priority,
    )


def resources_from_proto(message: pb2.Resources) -> Resources:
    return Resources(
        memory=message.memory,
        memory_reservation=message.memory_reservation,
        memory_swap=message.memory_swap,
        memory_swappiness=message.memory_swappiness if message.HasField("memory_swappiness") else None,
        cpu_shares=message.cpu_shares,
        cpu_period=message.cpu_period,
        cpu_quota=message.cpu_quota,
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        pids_limit=message.pids_limit,
        blkio_weight=message.blkio_weight,
        blkio_weight_device=_numbers(message.blkio_weight_device),
        blkio_read_bps=_numbers(message.blkio_read_bps),
        blkio_write_bps=_numbers(message.blkio_write_bps),
        blkio_read_iops=_numbers(message.blkio_read_iops),
        blkio_write_iops=_numbers(message.blkio_write_iops),
    )


def published_ports_from_proto(messages: Iterable[pb2.PublishedPort]) -> tuple[PublishedPort, ...]:
    """Raises InvalidArgument for a protocol that this version lacks."""
    ports = tuple(messages)
    if unknown := list(_violations_of_words(_protocol_words(ports), "")):
        raise InvalidArgument(violations=unknown)
    return tuple(_published_port(port) for port in ports)


def size_from_proto(message: pb2.TerminalSize) -> TerminalSize:
    return TerminalSize(height=message.height, width=message.width)


_Word = tuple[str, int, Iterable[int]]  # field, number, the numbers that are known


def _protocol_words(ports: Iterable[pb2.PublishedPort]) -> list[_Word]:
    return [(f"published_ports[{index}].protocol", port.protocol, _PROTOCOLS) for index, port in enumerate(ports)]


def _violations_of_words(words: Iterable[_Word], prefix: str) -> Iterable[Violation]:
    for field, number, known in words:
        if number not in known:
            rule = f"{number} is none of {', '.join(map(str, known))}, the numbers this executor knows"
            yield Violation(field=f"{prefix}{field}", description=rule)


def _unknown_words(message: pb2.ContainerSpec) -> Iterable[Violation]:
    checks: list[_Word] = [
        ("network_mode", message.network_mode, _NETWORK_MODES),
        ("seccomp", message.seccomp, _SECCOMP),
        ("ipc_mode", message.ipc_mode, _NAMESPACE_MODES),
        ("pid_mode", message.pid_mode, _NAMESPACE_MODES),
        ("restart_policy.condition", message.restart_policy.condition, RESTART_CONDITIONS),
    ]
    checks += [(f"mounts[{index}].type", mount.type, _MOUNT_TYPES) for index, mount in enumerate(message.mounts)]
    checks += [
        (f"dependencies[{index}].condition", dependency.condition, DEPENDENCY_CONDITIONS)
        for index, dependency in enumerate(message.dependencies)
    ]
    yield from _violations_of_words([*checks, *_protocol_words(message.published_ports)], "spec.")
    if message.HasField("health_check") and message.health_check.WhichOneof("probe") is None:
        yield Violation(field="spec.health_check.probe", description="must say how to probe; leave out the whole check")


def _names(message: pb2.ContainerSpec) -> NameResolution:
    return NameResolution(
        servers=tuple(message.dns_servers),
        search=tuple(message.dns_search),
        options=tuple(message.dns_options),
        extra_hosts=tuple((entry.name, entry.address) for entry in message.extra_hosts),
    )


def _log(message: pb2.ContainerSpec) -> LogLimits:
    return LogLimits(
        max_size=message.log_max_size,
        max_files=message.log_max_files,
        disabled=message.log_disabled,
        buffer=message.log_buffer_size,
    )


def _mount(message: pb2.Mount) -> Mount:
    return Mount(
        type=_MOUNT_TYPES.get(message.type, MountType.TMPFS),
        source=message.source,
        target=message.target,
        read_only=message.read_only,
        read_only_non_recursive=message.read_only_non_recursive,
        read_only_force_recursive=message.read_only_force_recursive,
        propagation=message.propagation,
        non_recursive=message.non_recursive,
        create_source=message.create_source,
        populate=message.populate,
        subpath=message.subpath,
        options=tuple(message.options),
    )


def _rlimit(message: pb2.Rlimit) -> Rlimit:
    return Rlimit(name=message.name, soft=message.soft, hard=message.hard)


def _device(message: pb2.Device) -> Device:
    return Device(source=message.source, target=message.target, permissions=message.permissions)


def _device_rule(message: pb2.DeviceRule) -> DeviceRule:
    return DeviceRule(type=message.type, major=message.major, minor=message.minor, permissions=message.permissions)


def _published_port(port: pb2.PublishedPort) -> PublishedPort:
    return PublishedPort(
        host_ip=port.host_ip,
        host_port=port.host_port,
        host_port_last=port.host_port_last,
        container_port=port.container_port,
        protocol=_PROTOCOLS.get(port.protocol, PortProtocol.TCP),
    )


def _security(message: pb2.ContainerSpec) -> Security:
    return Security(
        capabilities=tuple(message.capabilities),
        privileged=message.privileged,
        no_new_privileges=message.no_new_privileges,
        seccomp=_SECCOMP.get(message.seccomp, Seccomp.DEFAULT),
        seccomp_profile=message.seccomp_profile,
        apparmor_profile=message.apparmor_profile,
        masked_paths=tuple(message.masked_paths.paths) if message.HasField("masked_paths") else None,
        readonly_paths=tuple(message.readonly_paths.paths) if message.HasField("readonly_paths") else None,
        writable_cgroups=message.writable_cgroups,
    )


def _namespaces(message: pb2.ContainerSpec) -> Namespaces:
    return Namespaces(
        ipc=_NAMESPACE_MODES.get(message.ipc_mode, NamespaceMode.PRIVATE),
        ipc_container=message.ipc_container,
        pid=_NAMESPACE_MODES.get(message.pid_mode, NamespaceMode.PRIVATE),
        pid_container=message.pid_container,
        host_uts=message.host_uts,
        private_cgroup=message.private_cgroupns,
    )


def _numbers(messages: Iterable[pb2.DeviceNumber]) -> tuple[DeviceNumber, ...]:
    return tuple(DeviceNumber(path=message.path, value=message.value) for message in messages)
