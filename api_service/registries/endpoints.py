"""Where an image's repository is reached.

Source: Docker's registry of short names is `docker.io`, served by `registry-1.docker.io`; a registry on the loopback
interface is spoken to over HTTP, as Docker does.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from api_service.nodes.images import RegistryCredentials, RegistryEndpoint
from api_service.validation.references import DEFAULT_DOMAIN, ImageReference

_DEFAULT_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """`insecure`: hosts, with their port if any, that speak HTTP."""

    insecure: frozenset[str] = frozenset()
    default_registry: str = ""

    def is_configured(self, reference: ImageReference) -> bool:
        """Whether it is clear where to take the image from without being told to."""
        return reference.domain != DEFAULT_DOMAIN or bool(self.default_registry)

    def endpoints_of(self, reference: ImageReference, shown: RegistryCredentials) -> tuple[RegistryEndpoint, ...]:
        """In the order to try them; `shown`: what the request brought for the registry."""
        host = _DEFAULT_HOST if reference.domain == DEFAULT_DOMAIN else reference.domain
        plain = reference.domain in self.insecure or _is_loopback(host)
        return (RegistryEndpoint(host=host, repository=reference.path, plain_http=plain, credentials=shown),)


def _is_loopback(host: str) -> bool:
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
