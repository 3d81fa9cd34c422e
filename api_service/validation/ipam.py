"""The addresses that a network may be asked to have."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from api_service.validation.addresses import parse_ip
from common.errors import Violation
from common.set_apart import IpNetwork, set_apart

_SMALLEST = {4: 30, 6: 126}  # bits of prefix, by version: a gateway and one container
_MAX_AUX = 1000

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class IpamConfig:
    """As a request gives it."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: Mapping[str, str] = field(default_factory=dict)


def parse_subnet(text: str) -> IpNetwork | None:
    """None when `text` is no subnet in CIDR notation, or has bits behind its prefix."""
    if "%" in text or "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def validate_subnet(subnet: IpNetwork, field: str) -> list[Violation]:
    """What holds for a subnet whatever else is asked for."""
    found = [Violation(field=field, description=why) for why in set_apart(subnet)]
    if subnet.prefixlen > _SMALLEST[subnet.version]:
        why = f"{subnet} has no room for a gateway and a container; give a /{_SMALLEST[subnet.version]} or larger"
        found.append(Violation(field=field, description=why))
    return found


def validate_within(config: IpamConfig, subnet: IpNetwork, path: str) -> list[Violation]:
    """What a configuration says of its subnet: the range, the gateway and the auxiliary addresses."""
    found: list[Violation] = []
    if config.ip_range:
        found += _validate_range(config.ip_range, subnet, f"{path}.ip_range")
    taken: dict[IpAddress, str] = {}
    if config.gateway:
        found += _validate_address(config.gateway, subnet, f"{path}.gateway", taken, "the gateway")
    if len(config.aux_addresses) > _MAX_AUX:
        found.append(Violation(field=f"{path}.aux_addresses", description=f"holds at most {_MAX_AUX} addresses"))
        return found
    for name, address in sorted(config.aux_addresses.items()):
        key = json.dumps(name)
        found += _validate_address(
            address, subnet, f"{path}.aux_addresses[{key}]", taken, f"the auxiliary address {key}"
        )
    return found


def _validate_range(text: str, subnet: IpNetwork, field: str) -> list[Violation]:
    part = parse_subnet(text)
    if part is not None and part.version == subnet.version and part.subnet_of(subnet):  # type: ignore[arg-type]  # one family
        return []
    return [Violation(field=field, description=f"{text[:64]!r} is not a part of {subnet}, in CIDR notation")]


def _validate_address(
    text: str, subnet: IpNetwork, field: str, taken: dict[IpAddress, str], what: str
) -> list[Violation]:
    """One that nobody in `taken` has; it is put there."""
    address = parse_ip(text)
    if address is None or address not in subnet:
        why = f"{text[:64]!r} is not an address of {subnet}; give one of its own, without a prefix length"
    elif address == subnet.network_address:
        why = f"{address} is the address of {subnet} itself, which nobody can have; give a later one"
    elif address.version == 4 and address == subnet.broadcast_address:
        why = f"{address} is the broadcast address of {subnet}, which nobody can have; give an earlier one"
    elif address in taken:
        why = f"{address} is {taken[address]} already; give each address once"
    else:
        taken[address] = what
        return []
    return [Violation(field=field, description=why)]
