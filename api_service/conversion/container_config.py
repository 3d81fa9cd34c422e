"""Between the messages about what is asked of a container and the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from slipway.v1 import container_pb2 as pb2
from slipway.v1 import health_pb2, mount_pb2, resources_pb2

from api_service.conversion.times import duration, nanoseconds
from api_service.records.config import (
    ConsoleSize,
    ContainerConfig,
    Dependency,
    EndpointSettings,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    Placement,
    PortBinding,
    RestartPolicy,
)
from api_service.records.health import GrpcProbe, HealthConfig, HttpProbe, TcpProbe
from api_service.records.mount import BindOptions, ImageOptions, Mount, TmpfsOptions, VolumeDriver, VolumeOptions
from api_service.records.resources import DeviceMapping, DeviceNumber, DeviceRequest, Resources, Ulimit


def config_from_proto(message: pb2.ContainerConfig) -> ContainerConfig:
    return ContainerConfig(
        image=message.image,
        hostname=message.hostname,
        domainname=message.domainname,
        user=message.user,
        tty=message.tty,
        env=tuple(message.env),
        cmd=tuple(message.cmd),
        # The protocol cannot tell an empty list from none.
        entrypoint=tuple(message.entrypoint) or None,
        working_dir=message.working_dir,
        labels=dict(message.labels),
        stop_signal=message.stop_signal,
        stop_timeout=message.stop_timeout if message.HasField("stop_timeout") else None,
        exposed_ports=tuple(message.exposed_ports),
        open_stdin=message.open_stdin,
        stdin_once=message.stdin_once,
        attach_stdin=message.attach_stdin,
        attach_stdout=message.attach_stdout,
        attach_stderr=message.attach_stderr,
        healthcheck=_health_from_proto(message.healthcheck) if message.HasField("healthcheck") else None,
        volumes=tuple(message.volumes),
        shell=tuple(message.shell),
        network_disabled=message.network_disabled,
    )


def config_to_proto(config: ContainerConfig) -> pb2.ContainerConfig:
    return pb2.ContainerConfig(
        image=config.image,
        hostname=config.hostname,
        domainname=config.domainname,
        user=config.user,
        tty=config.tty,
        env=config.env,
        cmd=config.cmd,
        entrypoint=config.entrypoint or (),
        working_dir=config.working_dir,
        labels=dict(config.labels),
        stop_signal=config.stop_signal,
        stop_timeout=config.stop_timeout,
        exposed_ports=config.exposed_ports,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        attach_stdin=config.attach_stdin,
        attach_stdout=config.attach_stdout,
        attach_stderr=config.attach_stderr,
        healthcheck=_health_to_proto(config.healthcheck) if config.healthcheck is not None else None,
        volumes=config.volumes,
        shell=config.shell,
        network_disabled=config.network_disabled,
    )


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
        mounts=tuple(_mount_from_proto(mount) for mount in message.mounts),
        tmpfs=dict(message.tmpfs),
        volumes_from=tuple(message.volumes_from),
        restart_policy=restart_policy_from_proto(message.restart_policy),
        depends_on=tuple(
            Dependency(
                container=dependency.container,
                condition=dependency.condition,
                timeout=nanoseconds(dependency.timeout),
            )
            for dependency in message.depends_on
        ),
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
        ulimits=tuple(Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in message.ulimits),
        devices=tuple(_device_from_proto(device) for device in message.devices),
        device_cgroup_rules=tuple(message.device_cgroup_rules),
        device_requests=tuple(
            DeviceRequest(driver=request.driver, device_ids=tuple(request.device_ids))
            for request in message.device_requests
        ),
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
        resources=_resources_to_proto(host.resources),
        binds=host.binds,
        mounts=[_mount_to_proto(mount) for mount in host.mounts],
        tmpfs=dict(host.tmpfs),
        volumes_from=host.volumes_from,
        restart_policy=_restart_policy_to_proto(host.restart_policy),
        depends_on=[
            pb2.Dependency(
                container=dependency.container,
                condition=dependency.condition,
                timeout=duration(dependency.timeout),
            )
            for dependency in host.depends_on
        ],
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
        ulimits=[resources_pb2.Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in host.ulimits],
        devices=[
            resources_pb2.DeviceMapping(
                path_on_host=device.path_on_host,
                path_in_container=device.path_in_container,
                cgroup_permissions=device.cgroup_permissions,
            )
            for device in host.devices
        ],
        device_cgroup_rules=host.device_cgroup_rules,
        device_requests=[
            resources_pb2.DeviceRequest(driver=request.driver, device_ids=request.device_ids)
            for request in host.device_requests
        ],
        oom_score_adj=host.oom_score_adj,
        init=host.init,
        console_size=size_to_proto(host.console_size),
        port_bindings={port: bindings_to_proto(bindings) for port, bindings in host.port_bindings.items()},
        publish_all_ports=host.publish_all_ports,
        storage_opt=dict(host.storage_opt),
        placement=_placement_to_proto(host.placement) if host.placement != Placement() else None,
        reschedule=host.reschedule,
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


def port_bindings_from_proto(messages: Mapping[str, pb2.PortBindings]) -> dict[str, tuple[PortBinding, ...]]:
    return {
        port: tuple(PortBinding(host_ip=one.host_ip, host_port=one.host_port) for one in message.bindings)
        for port, message in messages.items()
    }


def bindings_to_proto(bindings: Iterable[PortBinding]) -> pb2.PortBindings:
    return pb2.PortBindings(
        bindings=[pb2.PortBinding(host_ip=binding.host_ip, host_port=binding.host_port) for binding in bindings]
    )


def endpoint_from_proto(message: pb2.EndpointSettings) -> EndpointSettings:
    """What is asked for; what is observed is left out."""
    return EndpointSettings(
        ipv4_address=message.ipv4_address,
        ipv6_address=message.ipv6_address,
        aliases=tuple(message.aliases),
        mac_address=message.mac_address,
        gw_priority=message.gw_priority,
    )


def networking_from_proto(message: pb2.NetworkingConfig) -> NetworkingConfig:
    return NetworkingConfig(
        endpoints={name: endpoint_from_proto(endpoint) for name, endpoint in message.endpoints_config.items()}
    )


def networking_to_proto(networking: NetworkingConfig) -> pb2.NetworkingConfig:
    return pb2.NetworkingConfig(
        endpoints_config={
            name: pb2.EndpointSettings(
                ipv4_address=settings.ipv4_address,
                ipv6_address=settings.ipv6_address,
                aliases=settings.aliases,
                mac_address=settings.mac_address,
                gw_priority=settings.gw_priority,
                network_id=settings.network_id,
            )
            for name, settings in networking.endpoints.items()
        }
    )


def resources_from_proto(message: resources_pb2.Resources) -> Resources:
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


def size_from_proto(message: pb2.ConsoleSize) -> ConsoleSize:
    return ConsoleSize(height=message.height, width=message.width)


def size_to_proto(size: ConsoleSize | None) -> pb2.ConsoleSize | None:
    return pb2.ConsoleSize(height=size.height, width=size.width) if size is not None else None


def _paths_to_proto(paths: tuple[str, ...] | None) -> pb2.PathList | None:
    return pb2.PathList(paths=paths) if paths is not None else None


def _resources_to_proto(resources: Resources) -> resources_pb2.Resources:
    return resources_pb2.Resources(
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
            resources_pb2.WeightDevice(path=device.path, weight=device.value)
            for device in resources.blkio_weight_device
        ],
        blkio_device_read_bps=_throttles_to_proto(resources.blkio_device_read_bps),
        blkio_device_write_bps=_throttles_to_proto(resources.blkio_device_write_bps),
        blkio_device_read_iops=_throttles_to_proto(resources.blkio_device_read_iops),
        blkio_device_write_iops=_throttles_to_proto(resources.blkio_device_write_iops),
    )


def _throttles_from_proto(messages: Iterable[resources_pb2.ThrottleDevice]) -> tuple[DeviceNumber, ...]:
    return tuple(DeviceNumber(path=message.path, value=message.rate) for message in messages)


def _throttles_to_proto(devices: Sequence[DeviceNumber]) -> list[resources_pb2.ThrottleDevice]:
    return [resources_pb2.ThrottleDevice(path=device.path, rate=device.value) for device in devices]


def _device_from_proto(message: resources_pb2.DeviceMapping) -> DeviceMapping:
    return DeviceMapping(
        path_on_host=message.path_on_host,
        path_in_container=message.path_in_container,
        cgroup_permissions=message.cgroup_permissions,
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


def _health_from_proto(message: health_pb2.HealthConfig) -> HealthConfig:
    http = message.http
    return HealthConfig(
        test=tuple(message.test),
        http=HttpProbe(port=http.port, path=http.path, headers=dict(http.headers))
        if message.HasField("http")
        else None,
        tcp=TcpProbe(port=message.tcp.port) if message.HasField("tcp") else None,
        grpc=GrpcProbe(port=message.grpc.port, service=message.grpc.service) if message.HasField("grpc") else None,
        interval=nanoseconds(message.interval),
        timeout=nanoseconds(message.timeout),
        start_period=nanoseconds(message.start_period),
        start_interval=nanoseconds(message.start_interval),
        retries=message.retries,
    )


def _health_to_proto(health: HealthConfig) -> health_pb2.HealthConfig:
    message = health_pb2.HealthConfig(
        test=health.test,
        interval=duration(health.interval),
        timeout=duration(health.timeout),
        start_period=duration(health.start_period),
        start_interval=duration(health.start_interval),
        retries=health.retries,
    )
    if (http := health.http) is not None:
        message.http.CopyFrom(health_pb2.HttpProbe(port=http.port, path=http.path, headers=dict(http.headers)))
    if health.tcp is not None:
        message.tcp.port = health.tcp.port
    if health.grpc is not None:
        message.grpc.CopyFrom(health_pb2.GrpcProbe(port=health.grpc.port, service=health.grpc.service))
    return message


def _mount_from_proto(message: mount_pb2.Mount) -> Mount:
    bind, volume, tmpfs = message.bind_options, message.volume_options, message.tmpfs_options
    return Mount(
        type=message.type,
        source=message.source,
        target=message.target,
        read_only=message.read_only,
        bind_options=BindOptions(
            propagation=bind.propagation,
            non_recursive=bind.non_recursive,
            create_mountpoint=bind.create_mountpoint,
            read_only_non_recursive=bind.read_only_non_recursive,
            read_only_force_recursive=bind.read_only_force_recursive,
        )
        if message.HasField("bind_options")
        else None,
        volume_options=VolumeOptions(
            no_copy=volume.no_copy,
            labels=dict(volume.labels),
            driver_config=driver_from_proto(volume.driver_config),
            subpath=volume.subpath,
        )
        if message.HasField("volume_options")
        else None,
        tmpfs_options=TmpfsOptions(size_bytes=tmpfs.size_bytes, mode=tmpfs.mode, options=tuple(tmpfs.options))
        if message.HasField("tmpfs_options")
        else None,
        image_options=ImageOptions(subpath=message.image_options.subpath)
        if message.HasField("image_options")
        else None,
    )


def driver_from_proto(message: mount_pb2.VolumeDriver) -> VolumeDriver:
    return VolumeDriver(name=message.name, options=dict(message.options))


def driver_to_proto(driver: VolumeDriver) -> mount_pb2.VolumeDriver:
    return mount_pb2.VolumeDriver(name=driver.name, options=dict(driver.options))


def _mount_to_proto(mount: Mount) -> mount_pb2.Mount:
    message = mount_pb2.Mount(type=mount.type, source=mount.source, target=mount.target, read_only=mount.read_only)
    if (bind := mount.bind_options) is not None:
        message.bind_options.CopyFrom(
            mount_pb2.BindOptions(
                propagation=bind.propagation,
                non_recursive=bind.non_recursive,
                create_mountpoint=bind.create_mountpoint,
                read_only_non_recursive=bind.read_only_non_recursive,
                read_only_force_recursive=bind.read_only_force_recursive,
            )
        )
    if (volume := mount.volume_options) is not None:
        message.volume_options.CopyFrom(
            mount_pb2.VolumeOptions(
                no_copy=volume.no_copy,
                labels=dict(volume.labels),
                driver_config=driver_to_proto(volume.driver_config),
                subpath=volume.subpath,
            )
        )
    if (tmpfs := mount.tmpfs_options) is not None:
        message.tmpfs_options.CopyFrom(
            mount_pb2.TmpfsOptions(size_bytes=tmpfs.size_bytes, mode=tmpfs.mode, options=tmpfs.options)
        )
    if mount.image_options is not None:
        message.image_options.CopyFrom(mount_pb2.ImageOptions(subpath=mount.image_options.subpath))
    return message
