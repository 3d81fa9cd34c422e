"""Where an image's repository is reached, and what is shown there.

What an image is named never depends on this: `busybox` is Docker's `docker.io/library/busybox` whichever place it is
taken from. Source: Docker's registry of short names is `docker.io`, served by `registry-1.docker.io`; a registry on the
loopback interface is spoken to over HTTP, as Docker does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from api_service.executor_client.images import RegistryCredentials, RegistryEndpoint
from api_service.registries.docker_config import DockerConfig
from api_service.registries.locations import Location
from api_service.validation.references import DEFAULT_DOMAIN, ImageReference


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """`insecure`: hosts, with their port if any, that speak HTTP. `default`: what serves short names; None: Docker's,
    when it is asked for. `mirrors`: what is tried before the registry of that domain. `aliases`: repositories that are
    taken from elsewhere."""

    insecure: frozenset[str] = frozenset()
    default: Location | None = None
    mirrors: Mapping[str, tuple[Location, ...]] = field(default_factory=dict)
    aliases: Mapping[Location, Location] = field(default_factory=dict)
    docker_config: DockerConfig = field(default_factory=DockerConfig)

    def is_configured(self, reference: ImageReference) -> bool:
        """Whether it is clear where to take the image from without being told to."""
        named = Location(domain=reference.domain.lower(), path=reference.path)
        return named.domain != DEFAULT_DOMAIN or self.default is not None or named in self.aliases

    async def endpoints_of(self, reference: ImageReference, shown: RegistryCredentials) -> tuple[RegistryEndpoint, ...]:
        """Mirrors in their order, then the registry. `shown`: what the request brought, which is for the registry
        alone; empty: what Docker's config.json has. Raises FailedPrecondition."""
        place = self._place(reference)
        mirrors = [mirror.below(place.path) for mirror in self.mirrors.get(place.domain, ())]
        found = [await self._endpoint(mirror, RegistryCredentials()) for mirror in mirrors]
        return (*found, await self._endpoint(place, shown))

    async def registry_of(self, reference: ImageReference, shown: RegistryCredentials) -> RegistryEndpoint:
        """Where the image is pushed to, which no mirror is. Raises FailedPrecondition."""
        return await self._endpoint(self._place(reference), shown)

    def _place(self, reference: ImageReference) -> Location:
        named = Location(domain=reference.domain.lower(), path=reference.path)
        if (alias := self.aliases.get(named)) is not None:
            return alias
        if named.domain == DEFAULT_DOMAIN and self.default is not None:
            return self.default.below(named.path)
        return named

    async def _endpoint(self, place: Location, shown: RegistryCredentials) -> RegistryEndpoint:
        if shown == RegistryCredentials():
            shown = await self.docker_config.credentials_for(place.host)
        return RegistryEndpoint(
            host=place.host,
            repository=place.path,
            plain_http=place.domain in self.insecure or _is_loopback(place.host),
            credentials=shown,
        )


def _is_loopback(host: str) -> bool:
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
