"""What an update changes of a container's published ports: those it names, and no others."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from api_service.records.config import HostConfig, PortBinding
from api_service.validation.port_bindings import (
    normalise_port_bindings,
    part_of_binding,
    port_warnings,
    validate_port_bindings,
)
from api_service.validation.ports import PortRange, normalise_exposed_ports, parse_port, validate_exposed_ports
from common.errors import Violation

_Spans = dict[str, list[PortRange]]  # by protocol, ascending, without a port in common


@dataclass(frozen=True, slots=True, kw_only=True)
class PortChanges:
    """`port_bindings`: as in HostConfig; each port named is published so and nowhere else. `unpublish`: ports of the
    container. `publish_all_ports`: None stays."""

    port_bindings: Mapping[str, tuple[PortBinding, ...]] = field(default_factory=dict)
    unpublish: tuple[str, ...] = ()
    publish_all_ports: bool | None = None


def changed_ports(host: HostConfig, changes: PortChanges) -> HostConfig:
    """With the changes as they were asked for, whether they are valid or not; ranges are taken apart where one of their
    ports is named."""
    named = _spans([*changes.port_bindings, *changes.unpublish])
    kept: dict[str, tuple[PortBinding, ...]] = {}
    for port, bindings in host.port_bindings.items():
        span = parse_port(port)
        for part in _without(span, named):
            kept[str(part)] = tuple(part_of_binding(span, part, binding) for binding in bindings)
    publish_all = host.publish_all_ports if changes.publish_all_ports is None else changes.publish_all_ports
    return dataclasses.replace(host, port_bindings=kept | dict(changes.port_bindings), publish_all_ports=publish_all)


def validate_port_changes(changed: HostConfig, changes: PortChanges, exposed: Iterable[str]) -> list[Violation]:
    """`changed`: what `changed_ports` made; `exposed`: the container's exposed ports."""
    if changes == PortChanges():
        return []
    broken = [*validate_port_bindings(changed, ""), *validate_exposed_ports(changes.unpublish, "unpublish")]
    wanted, exposed_spans = _spans(changes.port_bindings), _spans(exposed)
    for index, spec in enumerate(changes.unpublish):
        why = ""
        if _touches(spec, wanted):
            why = f"{spec[:64]!r} is also to be published by port_bindings; say one of them"
        elif changed.publish_all_ports and _touches(spec, exposed_spans):
            why = f"{spec[:64]!r} is exposed, and publish_all_ports publishes it; set that to false and name the others"
        if why:
            broken.append(Violation(field=f"unpublish[{index}]", description=why))
    return broken


def normalise_port_changes(changed: HostConfig) -> HostConfig:
    return dataclasses.replace(changed, port_bindings=normalise_port_bindings(changed.port_bindings))


def port_change_warnings(before: HostConfig, changes: PortChanges) -> Sequence[str]:
    """A sentence each, of valid changes."""
    published = _spans(before.port_bindings)
    idle = [spec for spec in changes.unpublish if not _touches(spec, published)]
    asked = dataclasses.replace(
        before, port_bindings=changes.port_bindings, publish_all_ports=bool(changes.publish_all_ports)
    )
    return [*(f"unpublish: port {spec} is not published." for spec in idle), *port_warnings(asked, "")]


def _spans(specs: Iterable[str]) -> _Spans:
    """Of the valid ones; the others are reported elsewhere."""
    found: _Spans = {}
    for spec in normalise_exposed_ports([spec for spec in specs if _parsed(spec) is not None]):
        span = parse_port(spec)
        found.setdefault(span.protocol, []).append(span)
    return found


def _parsed(spec: str) -> PortRange | None:
    try:
        return parse_port(spec)
    except ValueError:
        return None


def _from(span: PortRange, spans: _Spans) -> Iterator[PortRange]:
    """Those that it has ports in common with."""
    others = spans.get(span.protocol, [])
    for other in islice(others, bisect_left(others, span.first, key=lambda other: other.last), None):
        if other.first > span.last:
            return
        yield other


def _touches(spec: str, spans: _Spans) -> bool:
    span = _parsed(spec)
    return span is not None and next(_from(span, spans), None) is not None


def _without(span: PortRange, spans: _Spans) -> Iterator[PortRange]:
    first = span.first
    for other in _from(span, spans):
        if other.first > first:
            yield dataclasses.replace(span, first=first, last=other.first - 1)
        first = other.last + 1
    if first <= span.last:
        yield dataclasses.replace(span, first=first)
