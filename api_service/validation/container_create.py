"""A create request as a whole: every rule it breaks at once, its defaults, and what to warn of.

`validate_create`, then `normalise`, then `warnings`; all three are pure. What one field decides alone stands in the
protocol (`protos/slipway/v1/container.proto`) and not here. The image's configuration comes later
(`api_service.operations.image_config_merge`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from api_service.placement.constraints import validate_constraints
from api_service.records.config import ON_NODE_LOSS, ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig
from api_service.validation.annotations import validate_annotations
from api_service.validation.binds import validate_binds
from api_service.validation.cgroup_parent import validate_cgroup_parent
from api_service.validation.dependencies import normalise_dependency, validate_dependencies
from api_service.validation.environment import validate_environment
from api_service.validation.extra_hosts import validate_extra_hosts
from api_service.validation.health import validate_health
from api_service.validation.host_facts import HostFacts
from api_service.validation.log_options import normalise_log_config, validate_log_config
from api_service.validation.mounts import validate_destinations, validate_mounts
from api_service.validation.name_resolution import validate_dns, validate_dns_options, validate_dns_search
from api_service.validation.names import strip_name
from api_service.validation.network_mode import (
    BRIDGE,
    HOST,
    NONE,
    effective_network,
    normalise_network,
    validate_endpoints,
    validate_network_disabled,
    validate_network_mode,
    validate_shared_network,
)
from api_service.validation.port_bindings import normalise_port_bindings, port_warnings, validate_port_bindings
from api_service.validation.ports import normalise_exposed_ports, validate_exposed_ports
from api_service.validation.privileges import normalise_privileges, privilege_warnings, validate_privileges
from api_service.validation.process import (
    clean_path,
    validate_domainname,
    validate_user,
    validate_words,
    validate_working_dir,
)
from api_service.validation.references import validate_image
from api_service.validation.remapped_users import validate_remapped
from api_service.validation.resources import fit_resources, validate_oom_score_adj, validate_resources
from api_service.validation.restart_policy import normalise_restart_policy, validate_restart_policy
from api_service.validation.signals import validate_signal
from api_service.validation.storage_opt import validate_storage_opt
from api_service.validation.tmpfs import validate_tmpfs
from api_service.validation.volumes import normalise_volume_paths, validate_volume_paths, validate_volumes_from
from common.errors import Violation

DEFAULT_SHM_SIZE = 64 * 1024 * 1024  # bytes
DEFAULT_STOP_TIMEOUT = 10  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A valid request with its defaults. `name` is empty when one is to be generated. `dropped`: what the node cannot
    do, a sentence each."""

    name: str
    config: ContainerConfig
    host_config: HostConfig
    networking_config: NetworkingConfig
    dropped: tuple[str, ...] = ()


def validate_create(
    config: ContainerConfig,
    host_config: HostConfig,
    networking_config: NetworkingConfig,
    facts: HostFacts,
) -> list[Violation]:
    """Every broken rule but the protocol's, in the order of the fields."""
    network_mode = effective_network(host_config.network_mode, disabled=config.network_disabled)
    return [
        *(validate_image(config.image, "config.image") if config.image else ()),
        *validate_config(config, "config"),
        *validate_network_disabled(config.network_disabled, host_config.network_mode, "config.network_disabled"),
        *validate_host_config(host_config, facts, "host_config"),
        *validate_privileges(config, host_config, facts, network_mode=network_mode, field="host_config"),
        *validate_remapped(host_config, facts, network_mode=network_mode, field="host_config"),
        *validate_shared_network(config, host_config, network_mode=network_mode),
        *validate_endpoints(networking_config.endpoints, network_mode, "networking_config.endpoints_config"),
    ]


def validate_config(config: ContainerConfig, field: str) -> list[Violation]:
    """All of the portable part but the image's name: an image's own configuration is held to the same rules."""
    violations: list[Violation] = []
    if config.domainname:
        violations += validate_domainname(config.domainname, f"{field}.domainname")
    if config.user:
        violations += validate_user(config.user, f"{field}.user")
    violations += validate_environment(config.env, f"{field}.env")
    violations += validate_words(config.cmd, f"{field}.cmd")
    violations += validate_words(config.entrypoint or (), f"{field}.entrypoint")
    if config.working_dir:
        violations += validate_working_dir(config.working_dir, f"{field}.working_dir")
    if config.stop_signal:
        violations += validate_signal(config.stop_signal, f"{field}.stop_signal")
    violations += validate_exposed_ports(config.exposed_ports, f"{field}.exposed_ports")
    violations += validate_volume_paths(config.volumes, f"{field}.volumes")
    if config.healthcheck is not None:
        violations += validate_health(config.healthcheck, f"{field}.healthcheck")
    violations += validate_words(config.shell, f"{field}.shell")
    return violations


def validate_host_config(host_config: HostConfig, facts: HostFacts, field: str) -> list[Violation]:
    return [
        *validate_network_mode(host_config.network_mode, f"{field}.network_mode"),
        *validate_dns(host_config.dns, f"{field}.dns"),
        *validate_dns_search(host_config.dns_search, f"{field}.dns_search"),
        *validate_dns_options(host_config.dns_options, f"{field}.dns_options"),
        *validate_extra_hosts(host_config.extra_hosts, f"{field}.extra_hosts"),
        *validate_log_config(host_config.log_config, f"{field}.log_config"),
        *_validate_runtime(host_config.runtime, facts, f"{field}.runtime"),
        *validate_annotations(host_config.annotations, f"{field}.annotations"),
        *validate_binds(host_config.binds, f"{field}.binds"),
        *validate_mounts(host_config, facts, field),
        *validate_tmpfs(host_config.tmpfs, f"{field}.tmpfs"),
        *validate_destinations(host_config, field),
        *validate_volumes_from(host_config.volumes_from, f"{field}.volumes_from"),
        *validate_resources(host_config.resources, facts, f"{field}.resources"),
        *validate_cgroup_parent(host_config.cgroup_parent, f"{field}.cgroup_parent"),
        *validate_oom_score_adj(host_config.oom_score_adj, f"{field}.oom_score_adj"),
        *validate_storage_opt(host_config.storage_opt, f"{field}.storage_opt"),
        *_validate_reschedule(host_config, f"{field}.reschedule"),
        *validate_constraints(host_config.placement.constraints, f"{field}.placement.constraints"),
        *validate_restart_policy(
            host_config.restart_policy, f"{field}.restart_policy", auto_remove=host_config.auto_remove
        ),
        *validate_dependencies(host_config.depends_on, f"{field}.depends_on"),
        *validate_port_bindings(host_config, field),
    ]


def normalise(
    name: str,
    config: ContainerConfig,
    host_config: HostConfig,
    networking_config: NetworkingConfig,
    facts: HostFacts,
) -> Creation:
    """The one place where defaults are given, to a valid request. What an image may give too (user, working directory,
    stop signal) has its default after the merge; the host name's is the short id, which does not exist yet."""
    fitted = fit_resources(host_config.resources, facts, "host_config.resources")
    network_mode = effective_network(host_config.network_mode, disabled=config.network_disabled)
    return Creation(
        name=strip_name(name),
        config=replace(
            config,
            working_dir=clean_path(config.working_dir) if config.working_dir else "",
            stop_timeout=DEFAULT_STOP_TIMEOUT if config.stop_timeout is None else config.stop_timeout,
            exposed_ports=normalise_exposed_ports(config.exposed_ports),
            volumes=normalise_volume_paths(config.volumes),
        ),
        host_config=replace(
            normalise_privileges(host_config, facts, network_mode=network_mode),
            network_mode=network_mode,
            log_config=normalise_log_config(host_config.log_config),
            runtime=host_config.runtime or facts.default_runtime,
            shm_size=host_config.shm_size or DEFAULT_SHM_SIZE,
            resources=fitted.resources,
            restart_policy=normalise_restart_policy(host_config.restart_policy),
            port_bindings=normalise_port_bindings(host_config.port_bindings),
            depends_on=tuple(normalise_dependency(dependency) for dependency in host_config.depends_on),
        ),
        dropped=fitted.warnings,
        networking_config=NetworkingConfig(
            endpoints={
                normalise_network(network): _normalise_endpoint(settings)
                for network, settings in networking_config.endpoints.items()
            }
        ),
    )


def warnings(creation: Creation, facts: HostFacts) -> list[str]:
    """What the request asks for and will not get, a sentence each."""
    found = [*creation.dropped, *privilege_warnings(creation.host_config, facts)]
    mode = creation.host_config.network_mode
    if mode == BRIDGE and not facts.ipv4_forwarding:
        found.append("IPv4 forwarding is off on the node: the container will not reach other networks.")
    if mode in (HOST, NONE) and creation.config.exposed_ports:
        found.append(f"config.exposed_ports has no effect with network mode '{mode}'.")
    found += port_warnings(creation.host_config)
    if mode == NONE and any(settings.mac_address for settings in creation.networking_config.endpoints.values()):
        found.append("mac_address has no effect with network mode 'none'.")
    return found


def _normalise_endpoint(settings: EndpointSettings) -> EndpointSettings:
    return replace(settings, mac_address=settings.mac_address.lower())


def _validate_reschedule(host_config: HostConfig, field: str) -> list[Violation]:
    if host_config.reschedule == ON_NODE_LOSS and host_config.auto_remove:
        why = "a container that removes itself when it ends cannot go on elsewhere; choose one of the two"
        return [Violation(field=field, description=why)]
    return []


def _validate_runtime(runtime: str, facts: HostFacts, field: str) -> list[Violation]:
    if not runtime or runtime in facts.runtimes:
        return []
    known = ", ".join(repr(name) for name in facts.runtimes)
    return [Violation(field=field, description=f"the node has no runtime {runtime[:64]!r}; it has {known}")]
