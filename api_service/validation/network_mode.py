"""Network modes and what each forbids. Source: Docker's conflict rules, with every one an invalid argument."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from api_service.records.config import ContainerConfig, EndpointSettings, HostConfig
from api_service.validation.addresses import validate_ipv4, validate_ipv6, validate_mac
from common.errors import Violation

BRIDGE = "bridge"
HOST = "host"
NONE = "none"
DEFAULT = "default"

PREDEFINED = (BRIDGE, HOST, NONE)
CONTAINER_PREFIX = "container:"
_REFERENCE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_ALIAS = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?")
_MAX_ENDPOINTS = 64
_MAX_ALIASES = 256
_EXAMPLE = "give 'bridge', 'host', 'none', 'container:<name or id>', or the name or id of a network"


def normalise_network(name: str) -> str:
    """The mode or network that `default` and nothing mean."""
    return BRIDGE if name in ("", DEFAULT) else name


def effective_network(mode: str, *, disabled: bool) -> str:
    """The mode that holds: a container whose network is disabled has `none`, whatever it asks for."""
    wanted = normalise_network(mode)
    return NONE if disabled and wanted == BRIDGE else wanted


def joined_network(mode: str) -> str | None:
    """The container whose network is shared, as it is called; None: none is."""
    return mode.removeprefix(CONTAINER_PREFIX) if mode.startswith(CONTAINER_PREFIX) else None


def join_network_mode(container_id: str) -> str:
    return f"{CONTAINER_PREFIX}{container_id}"


def has_own_namespace(mode: str) -> bool:
    return mode != HOST and joined_network(mode) is None


def has_networks(mode: str) -> bool:
    """Whether a container of this mode is attached to networks, and may be attached to more."""
    return mode not in (HOST, NONE) and joined_network(mode) is None


def validate_network_disabled(disabled: bool, mode: str, field: str) -> list[Violation]:
    if not disabled or normalise_network(mode) in (BRIDGE, NONE):
        return []
    why = f"what network mode {mode[:80]!r} gives cannot be disabled; leave one of them out"
    return [Violation(field=field, description=why)]


def validate_network_mode(mode: str, field: str) -> list[Violation]:
    reference = joined_network(normalise_network(mode))
    if reference is None:
        reference = normalise_network(mode)
    elif reference.startswith("/"):
        reference = reference[1:]
    if _REFERENCE.fullmatch(reference):
        return []
    return [Violation(field=field, description=f"{mode[:80]!r} is no network mode; {_EXAMPLE}")]


def validate_shared_network(config: ContainerConfig, host: HostConfig, *, network_mode: str) -> list[Violation]:
    """What a container that shares another one's network cannot have: it is that one's."""
    if joined_network(network_mode) is None:
        return []
    asked = {
        "config.hostname": config.hostname,
        "config.exposed_ports": config.exposed_ports,
        "host_config.dns": host.dns,
        "host_config.dns_search": host.dns_search,
        "host_config.dns_options": host.dns_options,
        "host_config.extra_hosts": host.extra_hosts,
    }
    why = f"with network mode '{CONTAINER_PREFIX}…' it is the other container's; leave it out, or set it there"
    return [Violation(field=field, description=why) for field, value in asked.items() if value]


def validate_endpoints(endpoints: Mapping[str, EndpointSettings], mode: str, field: str) -> list[Violation]:
    """`mode` as the request spells it. What a network itself forbids is told when it was looked up."""
    violations: list[Violation] = []
    wanted = normalise_network(mode)
    if len(endpoints) > _MAX_ENDPOINTS:
        why = f"holds {len(endpoints)} networks; a container has at most {_MAX_ENDPOINTS}"
        violations.append(Violation(field=field, description=why))
    seen: set[str] = set()
    for name, settings in endpoints.items():
        path = f"{field}[{json.dumps(name)}]"
        network = normalise_network(name) if name else ""
        if not has_networks(wanted) and network != wanted:
            why = f"a container with network mode '{wanted}' cannot join another network; remove this entry"
            violations.append(Violation(field=path, description=why))
        elif not _REFERENCE.fullmatch(network):
            why = f"{name[:80]!r} is no name or id of a network; give one, or remove the entry"
            violations.append(Violation(field=path, description=why))
        elif network in (HOST, NONE) and network != wanted:
            why = f"'{network}' is a network mode, which cannot be combined with a network; remove this entry"
            violations.append(Violation(field=path, description=why))
        elif network in seen:
            why = f"'{DEFAULT}' and '{BRIDGE}' are the same network; give its settings once"
            violations.append(Violation(field=path, description=why))
        seen.add(network)
        violations += validate_endpoint(settings, network, path)
    return violations


def validate_endpoint(settings: EndpointSettings, network: str, path: str) -> list[Violation]:
    """The settings of one endpoint. `network`: as it is called, which tells whether it is user-defined."""
    violations: list[Violation] = []
    fixed = f"a fixed address needs a user-defined network, '{network}' is none; leave it empty to get one chosen"
    if settings.ipv4_address:
        violations += validate_ipv4(settings.ipv4_address, f"{path}.ipv4_address")
    if settings.ipv6_address:
        violations += validate_ipv6(settings.ipv6_address, f"{path}.ipv6_address")
    if network in PREDEFINED:
        for name in ("ipv4_address", "ipv6_address"):
            if getattr(settings, name):
                violations.append(Violation(field=f"{path}.{name}", description=fixed))
        if settings.aliases:
            why = f"aliases need a user-defined network, '{network}' is none; remove them"
            violations.append(Violation(field=f"{path}.aliases", description=why))
    else:
        violations += _validate_aliases(settings.aliases, f"{path}.aliases")
    if settings.mac_address:
        violations += _validate_endpoint_mac(settings.mac_address, network, f"{path}.mac_address")
    return violations


def _validate_aliases(aliases: tuple[str, ...], field: str) -> list[Violation]:
    if len(aliases) > _MAX_ALIASES:
        return [Violation(field=field, description=f"holds {len(aliases)} aliases; give at most {_MAX_ALIASES}")]
    return [
        Violation(field=f"{field}[{index}]", description=f"{alias[:80]!r} is no host name like 'db'")
        for index, alias in enumerate(aliases)
        if not _ALIAS.fullmatch(alias)
    ]


def _validate_endpoint_mac(mac_address: str, network: str, field: str) -> list[Violation]:
    if network == HOST:
        why = "a container with network mode 'host' has the host's interfaces and cannot have an address of its own"
        return [Violation(field=field, description=why)]
    return validate_mac(mac_address, field)
