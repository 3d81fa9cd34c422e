"""What a container runs, made of what was asked for and what its image brings. Source: Docker's merge at create."""

from __future__ import annotations

from dataclasses import replace

from api_service.records.config import ContainerConfig, ImageConfig
from api_service.validation.container_create import validate_config
from api_service.validation.environment import merge_environment
from api_service.validation.health import merge_health
from api_service.validation.ports import normalise_exposed_ports
from api_service.validation.process import clean_path
from api_service.validation.signals import DEFAULT_STOP_SIGNAL
from api_service.validation.volumes import normalise_volume_paths
from common.errors import Violation

DEFAULT_WORKING_DIR = "/"


def merge_image_config(config: ContainerConfig, image: ImageConfig) -> ContainerConfig:
    """The request wins field by field; environment, labels, exposed ports and volumes are united by key. A health check
    has its defaults afterwards.

    A request's entrypoint drops the image's command. In the answer `entrypoint` is never None, `stop_signal` and
    `working_dir` have their defaults. The image's configuration must be valid (`validate_image_config`).
    """
    entrypoint, cmd = _command(config, image)
    return replace(
        config,
        user=config.user or image.user,
        env=merge_environment(config.env, image.env),
        entrypoint=entrypoint,
        cmd=cmd,
        working_dir=clean_path(config.working_dir or image.working_dir or DEFAULT_WORKING_DIR),
        labels={**image.labels, **config.labels},
        stop_signal=config.stop_signal or image.stop_signal or DEFAULT_STOP_SIGNAL,
        exposed_ports=normalise_exposed_ports((*config.exposed_ports, *image.exposed_ports)),
        volumes=normalise_volume_paths((*config.volumes, *image.volumes)),
        healthcheck=merge_health(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell,
    )


def validate_image_config(image: ImageConfig, field: str = "config.image") -> list[Violation]:
    """An image is somebody else's: its configuration is held to the rules that a request's is held to."""
    as_config = ContainerConfig(
        user=image.user,
        env=image.env,
        entrypoint=image.entrypoint,
        cmd=image.cmd,
        working_dir=image.working_dir,
        stop_signal=image.stop_signal,
        exposed_ports=image.exposed_ports,
        volumes=image.volumes,
        healthcheck=image.healthcheck,
        shell=image.shell,
    )
    return [
        Violation(field=field, description=f"the image's own {violation.field}: {violation.description}")
        for violation in validate_config(as_config, "config")
    ]


def command_line(merged: ContainerConfig) -> tuple[str, ...]:
    """The program and its arguments."""
    return (*(merged.entrypoint or ()), *merged.cmd)


def validate_command(merged: ContainerConfig, field: str = "config.cmd") -> list[Violation]:
    words = command_line(merged)
    if words and not words[0]:
        return [Violation(field=field, description="the program's name, the first word, must not be empty")]
    if words:
        return []
    why = "no command specified: neither the request nor the image names a program; give cmd or entrypoint"
    return [Violation(field=field, description=why)]


def _command(config: ContainerConfig, image: ImageConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entrypoint and command."""
    cmd = config.cmd
    if not config.entrypoint and not cmd:
        cmd = image.cmd
    entrypoint = image.entrypoint if config.entrypoint is None else config.entrypoint
    return (() if tuple(entrypoint) == ("",) else tuple(entrypoint)), tuple(cmd)
