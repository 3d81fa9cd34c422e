"""Between the messages about what runs in a container and the records."""

from __future__ import annotations

from slipway.v1 import container_pb2 as pb2

from api_service.conversion.health import health_config_from_proto, health_config_to_proto
from api_service.records.config import ContainerConfig


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
        healthcheck=health_config_from_proto(message.healthcheck) if message.HasField("healthcheck") else None,
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
        healthcheck=health_config_to_proto(config.healthcheck) if config.healthcheck is not None else None,
        volumes=config.volumes,
        shell=config.shell,
        network_disabled=config.network_disabled,
    )
