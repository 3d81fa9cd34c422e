"""Image references: `[domain/]path[:tag][@digest]`, their familiar and canonical forms, and image ids.

Source: the grammar of https://github.com/distribution/reference and its normalisation: a first component without a dot
or colon that is not `localhost` belongs to the path, the domain is then `docker.io`, whose one-component paths lie
below `library/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from common.errors import InvalidArgument, Violation

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"

_LEGACY_DEFAULT_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255  # characters of domain and path
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_SHORTEST_ID_PREFIX = 4

_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_FULL_ID = re.compile(r"(?:sha256:)?([a-f0-9]{64})")
_ID_PREFIX = re.compile(rf"(?:sha256:)?([a-f0-9]{{{_SHORTEST_ID_PREFIX},64}})")


class InvalidReference(InvalidArgument):
    """The text is no reference; the message says why."""

    default_reason = "INVALID_REFERENCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """Always with a domain, and with a tag, a digest or both unless it names a repository. Compare these, or
    `canonical`; show `familiar`."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def canonical(self) -> str:
        """`docker.io/library/busybox:latest`"""
        return f"{self.domain}/{self.path}{self._suffix}"

    @property
    def familiar(self) -> str:
        """`busybox:latest`"""
        return f"{self.familiar_name}{self._suffix}"

    @property
    def familiar_name(self) -> str:
        """`busybox`"""
        below = self.path.removeprefix(_OFFICIAL)
        short = below if "/" not in below else self.path
        # A path like `0.0/app` would be read as a registry's without its domain.
        return short if _split_domain(short) == (self.domain, self.path) else f"{self.domain}/{self.path}"

    @property
    def lookup(self) -> str:
        """What an image is found by, `busybox:latest` or `busybox@sha256:…`: a digest says all that a tag could."""
        return replace(self, tag="").familiar if self.digest else self.familiar

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> ImageReference:
    """What `text` says, no tag supplied. Raises InvalidReference."""
    if _FULL_ID.fullmatch(text):
        raise InvalidReference(f"{text!r} is an image id, not a name")
    rest, at, digest = text.partition("@")
    if at:
        _check_digest(digest)
    # A colon before the last slash separates a port.
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, colon, tag = rest, "", ""
    if colon and not _TAG.fullmatch(tag):
        rule = "must be 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not beginning with '.' or '-'"
        raise InvalidReference(f"the tag {_shown(tag)} {rule}")
    domain, path = _split_domain(name)
    _check_name(domain, path)
    return ImageReference(domain=domain, path=path, tag=tag, digest=digest)


def normalise_reference(text: str) -> ImageReference:
    """As `parse_reference`, with the tag `latest` when neither tag nor digest is given."""
    reference = parse_reference(text)
    return reference if reference.tag or reference.digest else replace(reference, tag=DEFAULT_TAG)


def full_image_id(text: str) -> str | None:
    """`sha256:<hex>` when `text` is a whole id, with or without its algorithm."""
    match = _FULL_ID.fullmatch(text)
    return f"sha256:{match[1]}" if match else None


def image_id_prefix(text: str) -> str | None:
    """The hex digits when `text` could be the beginning of an id, at least 4 of them. A name of the same letters
    (`cafe`) goes first: look for that before this."""
    match = _ID_PREFIX.fullmatch(text)
    return match[1] if match else None


def validate_image(text: str, field: str) -> list[Violation]:
    """An image as a request names it: reference, id or beginning of an id."""
    if full_image_id(text) or image_id_prefix(text):
        return []
    try:
        parse_reference(text)
    except InvalidReference as error:
        return [Violation(field=field, description=error.message)]
    return []


def is_host(text: str) -> bool:
    """With its port, if any."""
    return len(text) <= _MAX_NAME and bool(_DOMAIN.fullmatch(text))


def is_path(text: str) -> bool:
    """Of a repository, or what repositories lie below."""
    return len(text) <= _MAX_NAME and bool(_PATH.fullmatch(text))


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # An upper-case letter cannot stand in a path, so such a component is meant as a host.
    is_domain = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == _LEGACY_DEFAULT_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _check_name(domain: str, path: str) -> None:
    shown = _shown(path.removeprefix(_OFFICIAL) if domain == DEFAULT_DOMAIN else path)
    # First, for the patterns take a second for some megabytes.
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise InvalidReference(f"the image name {shown} is longer than {_MAX_NAME} characters")
    if not _DOMAIN.fullmatch(domain):
        rule = "a host name, with a port if need be, must stand before the first '/'"
        raise InvalidReference(f"{_shown(domain)} is not a registry: {rule}")
    if not _PATH.fullmatch(path):
        rule = "words of a-z and 0-9, joined by '/', '.', '_', '__' or any number of '-'"
        if _PATH.fullmatch(path.lower()):
            rule = "it must be lower-case"
        raise InvalidReference(f"{shown} is not an image name like 'busybox' or 'team/app': {rule}")


def _check_digest(digest: str) -> None:
    algorithm, _, digits = digest.partition(":")
    expected = _DIGEST_LENGTHS.get(algorithm)
    wrong_length = expected is not None and len(digits) != expected
    wrong_case = expected is not None and digits != digits.lower()
    if not _DIGEST.fullmatch(digest) or wrong_length or wrong_case:
        rule = "must be an algorithm and its lower-case hex digits, like 'sha256:' and 64 digits"
        raise InvalidReference(f"the digest {_shown(digest)} {rule}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
