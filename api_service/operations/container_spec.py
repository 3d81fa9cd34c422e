"""What the executor is asked to lay out: the record, with every default given and every text taken apart."""

from __future__ import annotations

from dataclasses import replace

from api_service.executor_client.container_spec import (
    ContainerSpec,
    DependencyCondition,
    ExecProbe,
    HealthCheck,
    NetworkMode,
    NodeDependency,
)
from api_service.nodes.endpoints import endpoint_specs
from api_service.operations.container_security import (
    container_device_rules,
    container_namespaces,
    container_rlimits,
    container_security,
)
from api_service.operations.node_resources import node_resources
from api_service.operations.published_ports import published_ports
from api_service.operations.signal_argument import signal_number
from api_service.records.config import ON_NODE_LOSS, ContainerConfig, Dependency
from api_service.records.container import ContainerRecord
from api_service.records.health import is_checked
from api_service.validation.container_create import DEFAULT_STOP_TIMEOUT
from api_service.validation.environment import process_environment
from api_service.validation.extra_hosts import parse_extra_host
from api_service.validation.health import probe_program
from api_service.validation.log_options import NOWHERE, log_bounds
from api_service.validation.network_mode import has_networks, joined_network
from api_service.validation.storage_opt import root_size


def _network_mode(mode: str) -> NetworkMode:
    if joined_network(mode) is not None:
        return NetworkMode.CONTAINER
    return NetworkMode.BRIDGE if has_networks(mode) else NetworkMode(mode)


def container_spec(record: ContainerRecord, *, remapped: bool = False) -> ContainerSpec:
    """Of a record whose configuration was validated and merged. `remapped`: its users are others on the node."""
    config, host = record.config, record.host_config
    bounds = log_bounds(host.log_config)
    return ContainerSpec(
        id=record.id,
        image_id=record.image_id,
        args=(record.path, *record.args),
        env=process_environment(config.env, hostname=config.hostname, tty=config.tty),
        working_dir=config.working_dir,
        user=config.user,
        hostname=config.hostname,
        domainname=config.domainname,
        terminal=config.tty,
        readonly_rootfs=host.readonly_rootfs,
        shm_size=host.shm_size,
        network_mode=_network_mode(host.network_mode),
        endpoints=endpoint_specs(record) if has_networks(host.network_mode) else (),
        network_container=joined_network(host.network_mode) or "",
        dns_servers=host.dns,
        dns_search=host.dns_search,
        dns_options=host.dns_options,
        extra_hosts=tuple(parse_extra_host(entry) for entry in host.extra_hosts),
        log_max_size=bounds.max_size,
        log_max_files=bounds.max_files,
        runtime=host.runtime,
        annotations=host.annotations,
        log_disabled=host.log_config.type == NOWHERE,
        log_buffer_size=bounds.buffer,
        resources=node_resources(host.resources),
        cgroup_parent=host.cgroup_parent,
        mounts=record.mount_points,
        security=container_security(host),
        namespaces=container_namespaces(host, remapped=remapped),
        group_add=host.group_add,
        sysctls=host.sysctls,
        rlimits=container_rlimits(host),
        devices=host.devices,
        device_rules=container_device_rules(host),
        cdi_devices=tuple(name for request in host.device_requests for name in request.device_ids),
        root_size=root_size(host.storage_opt),
        oom_score_adj=host.oom_score_adj,
        init=bool(host.init),
        terminal_size=host.console_size,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        stop_signal=signal_number(config.stop_signal, field="config.stop_signal"),
        stop_timeout=DEFAULT_STOP_TIMEOUT if config.stop_timeout is None else config.stop_timeout,
        restart_policy=host.restart_policy,
        health_check=_health_check(config),
        dependencies=tuple(map(_dependency, host.depends_on)),
        published_ports=published_ports(config, host),
        leased=host.reschedule == ON_NODE_LOSS,
    )


def _dependency(asked: Dependency) -> NodeDependency:
    return NodeDependency(
        container_id=asked.container, condition=DependencyCondition(asked.condition), timeout=asked.timeout
    )


def _health_check(config: ContainerConfig) -> HealthCheck | None:
    check = config.healthcheck
    if check is None or not is_checked(check):
        return None
    http = replace(check.http, path=check.http.path or "/") if check.http is not None else None
    return HealthCheck(
        probe=http or check.tcp or check.grpc or ExecProbe(args=probe_program(check.test, config.shell)),
        interval=check.interval,
        timeout=check.timeout,
        start_period=check.start_period,
        start_interval=check.start_interval,
        retries=check.retries,
    )
