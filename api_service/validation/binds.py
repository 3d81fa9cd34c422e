"""Bind strings, `[source:]destination[:mode]`. Source of the grammar: Docker's volume mount specifications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api_service.validation.mount_paths import parse_destination, parse_host_path
from api_service.validation.volumes import parse_volume_name
from common.errors import Violation

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
DEFAULT_PROPAGATION = "rprivate"

_ACCESS = ("rw", "ro")
_GROUPS = {
    "access": _ACCESS,
    "label": ("z", "Z"),
    "propagation": PROPAGATIONS,
    "copy": ("nocopy",),
    "consistency": ("consistent", "cached", "delegated", "default"),
}
_GROUP_OF = {word: group for group, words in _GROUPS.items() for word in words}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """`source`: a path of the node or a volume's name; empty for a new anonymous volume. `mode` as it was written.
    `propagation` is empty for a volume."""

    source: str
    destination: str
    mode: str = ""
    read_only: bool = False
    no_copy: bool = False
    propagation: str = ""

    @property
    def is_volume(self) -> bool:
        return not self.source.startswith("/")


def parse_bind(text: str) -> Bind:
    """Raises ValueError with a sentence."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"{text[:100]!r} is not [source:]destination[:mode], like '/srv/data:/data:ro' or 'db:/data'")
    if len(parts) == 1:
        return Bind(source="", destination=parse_destination(text))
    source, destination, mode = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    if len(parts) == 2 and not _bad_words(destination):
        raise ValueError(f"{text[:100]!r} has a mode where the destination belongs; write source:destination:mode")
    words = _parse_mode(mode)
    is_path = source.startswith("/")
    if is_path and "copy" in words:
        raise ValueError(f"{mode[:64]!r}: 'nocopy' is for volumes, {source[:64]!r} is a path of the node; remove it")
    if not is_path and "propagation" in words:
        raise ValueError(f"{mode[:64]!r}: {words['propagation']!r} is for paths of the node; remove it")
    return Bind(
        source=parse_host_path(source) if is_path else parse_volume_name(source),
        destination=parse_destination(destination),
        mode=mode,
        read_only=words.get("access") == "ro",
        no_copy="copy" in words,
        propagation=words.get("propagation", DEFAULT_PROPAGATION) if is_path else "",
    )


def validate_binds(binds: Sequence[str], field: str) -> list[Violation]:
    violations = []
    for index, text in enumerate(binds):
        try:
            parse_bind(text)
        except ValueError as error:
            violations.append(Violation(field=f"{field}[{index}]", description=str(error)))
    return violations


def _parse_mode(mode: str) -> dict[str, str]:
    """The word of each group."""
    words: dict[str, str] = {}
    if bad := _bad_words(mode):
        known = ", ".join(word for group in ("access", "label", "propagation", "copy") for word in _GROUPS[group])
        raise ValueError(f"{bad[0][:64]!r} is no mode; there are {known}")
    for word in mode.split(",") if mode else ():
        group = _GROUP_OF[word]
        if group in words:
            raise ValueError(f"{mode[:64]!r} holds two words for the {group}, {words[group]!r} and {word!r}; keep one")
        words[group] = word
    return words


def _bad_words(mode: str) -> list[str]:
    return [word for word in mode.split(",") if word not in _GROUP_OF] if mode else []
