"""What the executor is asked to lay out: the record, with every default given and every text taken apart."""

from __future__ import annotations

from api_service.nodes.executor import ContainerSpec, NetworkMode
from api_service.records.container import ContainerRecord
from api_service.validation.environment import process_environment
from api_service.validation.extra_hosts import parse_extra_host
from api_service.validation.log_options import log_bounds


def container_spec(record: ContainerRecord) -> ContainerSpec:
    """Of a record whose configuration was validated and merged."""
    config, host = record.config, record.host_config
    bounds = log_bounds(host.log_config)
    endpoint = record.networking_config.endpoints.get(host.network_mode)
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
        network_mode=NetworkMode(host.network_mode),
        mac_address=endpoint.mac_address if endpoint is not None else "",
        dns_servers=host.dns,
        dns_search=host.dns_search,
        dns_options=host.dns_options,
        extra_hosts=tuple(parse_extra_host(entry) for entry in host.extra_hosts),
        log_max_size=bounds.max_size,
        log_max_files=bounds.max_files,
        runtime=host.runtime,
        annotations=host.annotations,
    )
