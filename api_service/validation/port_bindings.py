"""Published ports. Source: Docker's grammar of ports, https://github.com/docker/go-connections nat, its rules at
create, and those that Docker applies no sooner than at start: two bindings for one port of the host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address

from api_service.records.config import HostConfig, PortBinding
from api_service.validation.network_mode import HOST, NONE
from api_service.validation.ports import PortRange, parse_port
from common.errors import Violation

MAX_PUBLISHED = 16_384  # ports of one container

_HOST_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HIGHEST = 65535
_SHARED = "container:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SinglePort:
    """One port of the container. `host_first` to `host_last`: the first free one is taken; both 0: any."""

    host_ip: str
    host_first: int
    host_last: int
    container_port: int
    protocol: str


def expand_binding(span: PortRange, binding: PortBinding) -> Iterator[SinglePort]:
    """Of a valid binding: one for each port of the container. A range of the host belongs to one port as a choice, to a
    range port by port."""
    first, last = _host_ports(binding.host_port)
    for offset, number in enumerate(range(span.first, span.last + 1)):
        paired = span.first != span.last and first > 0
        yield SinglePort(
            host_ip=binding.host_ip,
            host_first=first + offset if paired else first,
            host_last=first + offset if paired else last,
            container_port=number,
            protocol=span.protocol,
        )


def part_of_binding(span: PortRange, part: PortRange, binding: PortBinding) -> PortBinding:
    """What a valid binding of a range says of a part of it."""
    first, _ = _host_ports(binding.host_port)
    if span.first == span.last or first == 0:
        return binding
    begin = first + part.first - span.first
    return replace(binding, host_port=_shown(begin, begin + part.last - part.first))


def validate_port_bindings(host_config: HostConfig, field: str) -> list[Violation]:
    """`field`: the host configuration's, or empty for fields of the request itself."""
    prefix = f"{field}." if field else ""
    shared = host_config.network_mode.startswith(_SHARED)
    violations = []
    if shared and host_config.publish_all_ports:
        violations.append(Violation(field=f"{prefix}publish_all_ports", description=_NOT_SHARED))
    if shared and host_config.port_bindings:
        violations.append(Violation(field=f"{prefix}port_bindings", description=_NOT_SHARED))
    valid: list[tuple[str, PortRange, PortBinding]] = []
    for port, bindings in host_config.port_bindings.items():
        path = f"{prefix}port_bindings[{json.dumps(port)}]"
        try:
            span = parse_port(port)
        except ValueError as error:
            violations.append(Violation(field=path, description=str(error)))
            continue
        for index, binding in enumerate(bindings or (PortBinding(),)):
            at = f"{path}.bindings[{index}]"
            broken = [*_validate_host_ip(span, binding.host_ip, at), *_validate_host_port(span, binding.host_port, at)]
            violations += broken
            if not broken:
                valid.append((at, span, binding))
    count = sum(span.last - span.first + 1 for _, span, _ in valid)
    if count > MAX_PUBLISHED:
        why = f"{count} ports are more than the {MAX_PUBLISHED} that one container can publish"
        return [*violations, Violation(field=f"{prefix}port_bindings", description=why)]
    return [*violations, *_doubles(valid)]


def normalise_port_bindings(
    port_bindings: Mapping[str, tuple[PortBinding, ...]],
) -> dict[str, tuple[PortBinding, ...]]:
    """Of valid ones: every port once, as `80/tcp`, in ascending order; no binding stands for one with its defaults."""
    found: dict[PortRange, list[PortBinding]] = {}
    for port, bindings in port_bindings.items():
        for binding in bindings or (PortBinding(),):
            host_ip = str(ip_address(binding.host_ip)) if binding.host_ip else ""
            normal = PortBinding(host_ip=host_ip, host_port=_shown(*_host_ports(binding.host_port)))
            found.setdefault(parse_port(port), []).append(normal)
    ordered = sorted(found, key=lambda span: (span.first, span.last, span.protocol))
    return {str(span): tuple(found[span]) for span in ordered}


def port_warnings(asked: HostConfig, field: str = "host_config") -> list[str]:
    """Of a valid host configuration with its defaults; `field` as in `validate_port_bindings`."""
    prefix = f"{field}." if field else ""
    mode, found = asked.network_mode, []
    if mode in (HOST, NONE):
        for name, given in (("port_bindings", asked.port_bindings), ("publish_all_ports", asked.publish_all_ports)):
            if given:
                found.append(f"{prefix}{name} has no effect with network mode '{mode}'.")
    return found


_NOT_SHARED = (
    "a container that shares another one's network cannot publish ports; publish them from the container whose network "
    "it is"
)


def _validate_host_ip(span: PortRange, host_ip: str, at: str) -> list[Violation]:
    if not host_ip:
        return []
    why = ""
    try:
        address = ip_address(host_ip)
    except ValueError:
        why = f"{host_ip[:64]!r} is not an IP address; leave it empty for all addresses of the host"
    else:
        if isinstance(address, IPv6Address) and (address.scope_id or address.is_link_local):
            why = f"{host_ip[:64]!r} is an address of one link; publish on another address"
        elif isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            why = f"{host_ip[:64]!r} stands for an IPv4 address; write {address.ipv4_mapped}"
        elif address == IPv6Address("::1") and span.protocol != "tcp":
            why = f"only tcp can be published on ::1, not {span.protocol}; publish it on 127.0.0.1"
        elif address.is_multicast:
            why = f"{host_ip[:64]!r} is a multicast address; publish on an address of the host"
    return [Violation(field=f"{at}.host_ip", description=why)] if why else []


def _validate_host_port(span: PortRange, host_port: str, at: str) -> list[Violation]:
    path, shown = f"{at}.host_port", repr(host_port[:64])
    match = _HOST_PORT.fullmatch(host_port)
    if host_port and match is None:
        why = f"{shown} is not a port or a range, like '8080' or '8000-8010'; leave it empty for a free port"
        return [Violation(field=path, description=why)]
    first, last = _host_ports(host_port)
    if first > _HIGHEST or last > _HIGHEST:
        return [Violation(field=path, description=f"{shown} is outside the ports 1 to {_HIGHEST}")]
    if first > last:
        return [Violation(field=path, description=f"{shown} begins after its end; write the lower port first")]
    if first == 0 and last > 0:
        return [Violation(field=path, description=f"{shown} begins at 0; a range begins at 1")]
    size = span.last - span.first + 1
    if first > 0 and size > 1 and last - first + 1 != size:
        why = f"{shown} has {last - first + 1} ports, {span} has {size}; give as many, or none for free ports"
        return [Violation(field=path, description=why)]
    return []


def _host_ports(host_port: str) -> tuple[int, int]:
    match = _HOST_PORT.fullmatch(host_port)
    return (int(match[1]), int(match[2] or match[1])) if match is not None else (0, 0)


def _shown(first: int, last: int) -> str:
    if first == 0:
        return ""
    return f"{first}" if first == last else f"{first}-{last}"


def _doubles(bindings: list[tuple[str, PortRange, PortBinding]]) -> Iterator[Violation]:
    taken: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for at, span, binding in bindings:
        for one in expand_binding(span, binding):
            if one.host_first == 0 or one.host_first != one.host_last:
                continue
            holders = taken.setdefault((one.protocol, one.host_first), [])
            other = next((place for place, host_ip in holders if _overlap(host_ip, one.host_ip)), None)
            if other is not None:
                why = f"port {one.host_first}/{one.protocol} of the host is bound by {other} already; choose another"
                yield Violation(field=f"{at}.host_port", description=why)
                break
            holders.append((at, one.host_ip))


def _overlap(one: str, other: str) -> bool:
    if not one or not other:
        return True
    first, second = ip_address(one), ip_address(other)
    if first.version != second.version:
        return False
    return first == second or first.is_unspecified or second.is_unspecified
