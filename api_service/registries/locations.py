"""Places that images come from, as an operator writes them: `host[:port][/path]`."""

from __future__ import annotations

from dataclasses import dataclass

from api_service.validation.references import (
    DEFAULT_DOMAIN,
    InvalidReference,
    is_host,
    is_path,
    parse_reference,
)

_HUB_HOST = "registry-1.docker.io"  # serves what is named docker.io
MAX_MIRRORS = 8  # of one registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Repositories lie below `path`, which may be empty."""

    domain: str
    path: str = ""

    @property
    def host(self) -> str:
        """To connect to."""
        return _HUB_HOST if self.domain == DEFAULT_DOMAIN else self.domain

    def below(self, path: str) -> Location:
        return Location(domain=self.domain, path=f"{self.path}/{path}" if self.path else path)


def parse_location(text: str) -> Location:
    """Raises ValueError."""
    domain, _, path = text.partition("/")
    if not is_host(domain) or (path and not is_path(path)):
        raise ValueError(f"{text[:100]!r} is not host[:port][/path], like 'mirror.example:5000/hub'")
    return Location(domain=domain.lower(), path=path)


def parse_repository(text: str) -> Location:
    """A repository's whole name without tag and digest; that of a short one lies on docker.io. Raises ValueError."""
    try:
        reference = parse_reference(text)
    except InvalidReference as error:
        raise ValueError(error.message) from error
    if reference.tag or reference.digest:
        raise ValueError(f"{text[:100]!r} is not a repository's name, it has a tag or a digest")
    return Location(domain=reference.domain.lower(), path=reference.path)
