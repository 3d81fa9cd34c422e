"""Network modes and what each forbids. Source: Docker's conflict rules, with every one an invalid argument."""

from __future__ import annotations

import json
from collections.abc import Mapping

from api_service.records.config import EndpointSettings
from api_service.validation.addresses import validate_ipv4, validate_ipv6, validate_mac
from common.errors import Violation

BRIDGE = "bridge"
HOST = "host"
NONE = "none"
DEFAULT = "default"

_MODES = (BRIDGE, HOST, NONE)
_SUPPORTED = "'bridge', 'host' and 'none' are ('default' and empty mean 'bridge')"
_CONTAINER_PREFIX = "container:"


def normalise_network(name: str) -> str:
    """The mode or network that `default` and nothing mean."""
    return BRIDGE if name in ("", DEFAULT) else name


def effective_network(mode: str, *, disabled: bool) -> str:
    """The mode that holds: a container whose network is disabled has `none`, whatever it asks for."""
    return NONE if disabled and mode != HOST else normalise_network(mode)


def validate_network_disabled(disabled: bool, mode: str, field: str) -> list[Violation]:
    if not disabled or mode != HOST:
        return []
    why = f"the host's network, which network mode '{HOST}' gives, cannot be disabled; leave one of them out"
    return [Violation(field=field, description=why)]


def validate_network_mode(mode: str, field: str) -> list[Violation]:
    if normalise_network(mode) in _MODES:
        return []
    if mode.startswith(_CONTAINER_PREFIX):
        why = f"sharing another container's network ({mode[:80]!r}) is not supported; {_SUPPORTED}"
    else:
        why = f"{mode[:80]!r} would be a user-defined network, which are not supported; {_SUPPORTED}"
    return [Violation(field=field, description=why)]


def validate_endpoints(endpoints: Mapping[str, EndpointSettings], mode: str, field: str) -> list[Violation]:
    """`mode` as the request spells it; when it is itself at fault only what stands on its own is judged."""
    violations: list[Violation] = []
    wanted = normalise_network(mode)
    seen: set[str] = set()
    for name, settings in endpoints.items():
        path = f"{field}[{json.dumps(name)}]"
        network = normalise_network(name) if name else ""
        if wanted in _MODES and network != wanted:
            violations.append(Violation(field=path, description=_not_the_network(name, wanted)))
        elif network in seen:
            why = f"'{DEFAULT}' and '{BRIDGE}' are the same network; give its settings once"
            violations.append(Violation(field=path, description=why))
        seen.add(network)
        violations += _validate_endpoint(settings, network, path)
    return violations


def _not_the_network(name: str, mode: str) -> str:
    if name and normalise_network(name) not in _MODES:
        return f"{name[:80]!r} would be a user-defined network, which are not supported; {_SUPPORTED}"
    if mode in (HOST, NONE):
        return f"a container with network mode '{mode}' cannot join another network; remove this entry"
    return f"only the network of host_config.network_mode, '{mode}', can have settings here; remove this entry"


def _validate_endpoint(settings: EndpointSettings, network: str, path: str) -> list[Violation]:
    violations: list[Violation] = []
    fixed = f"a fixed address needs a user-defined network, '{network}' is none; leave it empty to get one chosen"
    if settings.ipv4_address:
        violations += validate_ipv4(settings.ipv4_address, f"{path}.ipv4_address")
    if settings.ipv6_address:
        violations += validate_ipv6(settings.ipv6_address, f"{path}.ipv6_address")
    if network in _MODES:
        for name in ("ipv4_address", "ipv6_address"):
            if getattr(settings, name):
                violations.append(Violation(field=f"{path}.{name}", description=fixed))
        if settings.aliases:
            why = f"aliases need a user-defined network, '{network}' is none; remove them"
            violations.append(Violation(field=f"{path}.aliases", description=why))
    if settings.mac_address:
        violations += _validate_endpoint_mac(settings.mac_address, network, f"{path}.mac_address")
    return violations


def _validate_endpoint_mac(mac_address: str, network: str, field: str) -> list[Violation]:
    if network == HOST:
        why = "a container with network mode 'host' has the host's interfaces and cannot have an address of its own"
        return [Violation(field=field, description=why)]
    return validate_mac(mac_address, field)
