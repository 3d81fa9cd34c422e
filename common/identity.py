"""Who is who between machines: a name and a role, in a certificate as the DNS name `NAME.ROLE.slipway.internal`.

A DNS name, because that is what a TLS handshake compares by itself: whoever dials node `n1` goes on with nobody but
`n1.executor.slipway.internal`. ICANN keeps `.internal` for private use, so no public authority certifies such names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

DOMAIN = "slipway.internal"
_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class Role(StrEnum):
    """The first three are people's and programs'; `api` and `executor` the services', `etcd` a member of the store."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"
    API = "api"
    EXECUTOR = "executor"
    ETCD = "etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    name: str
    role: Role

    def __post_init__(self) -> None:
        """Raises ValueError for a name that is not one of DNS."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} is not a name: lower-case letters, digits, hyphens and dots, at most 63 characters, "
                "as 'node-1'"
            )

    @property
    def dns_name(self) -> str:
        return f"{self.name}.{self.role}.{DOMAIN}"

    def __str__(self) -> str:
        return f"{self.name} ({self.role})"


def identity_in(dns_names: Iterable[str]) -> Identity | None:
    """The identity among a certificate's names. None for a certificate with none, or with several."""
    found = {identity for name in dns_names if (identity := _identity(name)) is not None}
    return found.pop() if len(found) == 1 else None


def _identity(dns_name: str) -> Identity | None:
    name, _, role = dns_name.removesuffix(f".{DOMAIN}").rpartition(".")
    if not dns_name.endswith(f".{DOMAIN}") or role not in set(Role):
        return None
    try:
        return Identity(name=name, role=Role(role))
    except ValueError:
        return None
