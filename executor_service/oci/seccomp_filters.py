"""Seccomp filters that crun has compiled before, handed to it again.

Compiling a profile takes crun longer than everything else it does to create a container. It leaves the result in its
state directory (`ID/seccomp.bpf`) and takes it back as the annotation `run.oci.seccomp_bpf_data` (crun(1)), base64, in
place of the profile. So each profile is compiled once in the life of an executor, and the rules of one that is
compiled, which are most of a configuration, are neither written nor read any more.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ANNOTATION = "run.oci.seccomp_bpf_data"
_MAX_FILTERS = 64
_INSTRUCTION_SIZE = 8  # struct sock_filter
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    profile: Mapping[str, object]
    filter: str  # base64

    @property
    def without_rules(self) -> dict[str, object]:
        """What crun needs of the profile beside the filter: that there is one, without which it would not filter at
        all, and the flags to load it with. A crun that did not take the filter would let nothing run."""
        kept = {name: value for name, value in self.profile.items() if name != "syscalls"}
        return {**kept, "defaultAction": "SCMP_ACT_KILL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFilters:
    """Filters by profile, for one crun binary. A few kilobytes each, and never more than 64 of them.

    Profiles are told apart by identity: they are shared and never change (see `seccomp`), and to compare what they say
    would take longer than anything else here."""

    _filters: dict[int, _Compiled] = field(default_factory=dict)

    def apply(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """The configuration with the compiled filter of its profile in place of the rules, if that is known."""
        linux, annotations = config.get("linux"), config.get("annotations")
        compiled = self._filters.get(id(_profile(config)))
        if compiled is None or not isinstance(linux, dict):
            return config
        return {
            **config,
            "linux": {**linux, "seccomp": compiled.without_rules},
            "annotations": {**(annotations if isinstance(annotations, dict) else {}), _ANNOTATION: compiled.filter},
        }

    def learn(self, config: Mapping[str, object], state: Path) -> None:
        """Keep the filter that crun compiled for this configuration, from the container's state directory. Blocks."""
        profile = _profile(config)
        if profile is None or id(profile) in self._filters:
            return
        try:
            content = (state / "seccomp.bpf").read_bytes()
        except FileNotFoundError:
            return
        if content and len(content) % _INSTRUCTION_SIZE == 0 and len(content) <= _MAX_INSTRUCTIONS * _INSTRUCTION_SIZE:
            # Profiles of users come and go; those used most were learnt anew soonest.
            while len(self._filters) >= _MAX_FILTERS:
                self._filters.pop(next(iter(self._filters)))
            # With the profile, so that no other one gets its identity.
            self._filters[id(profile)] = _Compiled(profile=profile, filter=base64.b64encode(content).decode())


def _profile(config: Mapping[str, object]) -> Mapping[str, object] | None:
    linux = config.get("linux")
    profile = linux.get("seccomp") if isinstance(linux, dict) else None
    return profile or None
