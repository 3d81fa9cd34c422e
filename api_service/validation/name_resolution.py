"""The settings of resolv.conf(5): servers, search domains, options. Each becomes a word of a line, so none may hold a
blank or a line end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from api_service.validation.addresses import parse_ip
from common.errors import Violation

NO_SEARCH = "."
"""As the only search domain: none, not even the host's."""

_DOMAIN = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?\.?")
_MAX_OPTION = 255  # characters, more than any there is
_OPTION = re.compile(r"[a-z0-9-]+(?::[0-9]+)?")


def validate_dns(servers: Sequence[str], field: str) -> list[Violation]:
    return [
        Violation(field=f"{field}[{index}]", description=f"{server[:64]!r} is not an IPv4 or IPv6 address")
        for index, server in enumerate(servers)
        if parse_ip(server) is None
    ]


def validate_dns_search(domains: Sequence[str], field: str) -> list[Violation]:
    violations = []
    for index, domain in enumerate(domains):
        if domain == NO_SEARCH and len(domains) > 1:
            why = f"'{NO_SEARCH}' means no search domain at all and cannot stand beside others"
            violations.append(Violation(field=f"{field}[{index}]", description=why))
        elif domain != NO_SEARCH and not _DOMAIN.fullmatch(domain):
            why = f"{domain[:64]!r} is not a domain: letters, digits, '.', '-' and '_', at most 253"
            violations.append(Violation(field=f"{field}[{index}]", description=why))
    return violations


def validate_dns_options(options: Sequence[str], field: str) -> list[Violation]:
    return [
        Violation(
            field=f"{field}[{index}]",
            description=f"{option[:64]!r} is not an option of resolv.conf: write a word or word:number, like 'ndots:2'",
        )
        for index, option in enumerate(options)
        if len(option) > _MAX_OPTION or not _OPTION.fullmatch(option)
    ]
