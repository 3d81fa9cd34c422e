"""Ports of a container: `80`, `80/tcp`, `8000-8010/udp`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from common.errors import Violation

_PROTOCOLS = ("tcp", "udp", "sctp")
_SPEC = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([a-zA-Z]+))?")
_HIGHEST = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """Ports `first` to `last`, both included."""

    first: int
    last: int
    protocol: str

    def __str__(self) -> str:
        span = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{span}/{self.protocol}"


def parse_port(text: str) -> PortRange:
    """Raises ValueError with a sentence."""
    match = _SPEC.fullmatch(text)
    shown = repr(text[:64])
    if match is None:
        raise ValueError(f"{shown} is not port or port/protocol, like '80/tcp' or '8000-8010/udp'")
    first, last = int(match[1]), int(match[2] or match[1])
    protocol = (match[3] or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise ValueError(f"{shown} names the protocol {protocol!r}; there are {', '.join(_PROTOCOLS)}")
    if not (1 <= first <= _HIGHEST and 1 <= last <= _HIGHEST):
        raise ValueError(f"{shown} is outside the ports 1 to {_HIGHEST}")
    if first > last:
        raise ValueError(f"{shown} begins after its end; write the lower port first")
    return PortRange(first=first, last=last, protocol=protocol)


def without(span: PortRange, taken: Collection[tuple[int, str]]) -> Iterator[PortRange]:
    """What is left of the range without some ports of (number, protocol)."""
    first = span.first
    for number in sorted(number for number, protocol in taken if protocol == span.protocol):
        if not first <= number <= span.last:
            continue
        if number > first:
            yield replace(span, first=first, last=number - 1)
        first = number + 1
    if first <= span.last:
        yield replace(span, first=first)


def normalise_exposed_ports(specs: Sequence[str]) -> tuple[str, ...]:
    """Of valid specs: every port once, as `80/tcp` or `8000-8010/udp`, in ascending order. Ranges stay ranges: a few
    words of a request can name all ports there are, and records are read often."""
    united: list[PortRange] = []
    for span in sorted(map(parse_port, specs), key=lambda span: (span.protocol, span.first, span.last)):
        if united and united[-1].protocol == span.protocol and span.first <= united[-1].last:
            united[-1] = replace(united[-1], last=max(united[-1].last, span.last))
        else:
            united.append(span)
    return tuple(map(str, sorted(united, key=lambda span: (span.first, span.protocol))))


def validate_exposed_ports(specs: Sequence[str], field: str) -> list[Violation]:
    violations = []
    for index, spec in enumerate(specs):
        try:
            parse_port(spec)
        except ValueError as error:
            violations.append(Violation(field=f"{field}[{index}]", description=str(error)))
    return violations
