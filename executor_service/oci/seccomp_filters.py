"""Seccomp filters that crun has compiled before, handed to it again.

Compiling a profile takes crun longer than everything else it does to create a container. It leaves the result in its
state directory (`ID/seccomp.bpf`) and takes it back as the annotation `run.oci.seccomp_bpf_data` (crun(1)), base64, in
place of the profile. So each profile is compiled once in the life of an executor.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ANNOTATION = "run.oci.seccomp_bpf_data"
_MAX_FILTERS = 64
_INSTRUCTION_SIZE = 8  # struct sock_filter
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFilters:
    """Filters by profile, for one crun binary. A few kilobytes each, and never more than 64 of them."""

    _filters: dict[str, str] = field(default_factory=dict)

    def apply(self, config: Mapping[str, object]) -> dict[str, object]:
        """The configuration with the compiled filter of its profile, if that is known. The profile stays in it: without
        it crun would not filter at all."""
        compiled = self._filters.get(_key(config))
        annotations = config.get("annotations")
        if compiled is None:
            return dict(config)
        return {
            **config,
            "annotations": {**(annotations if isinstance(annotations, dict) else {}), _ANNOTATION: compiled},
        }

    def learn(self, config: Mapping[str, object], state: Path) -> None:
        """Keep the filter that crun compiled for this configuration, from the container's state directory. Blocks."""
        key = _key(config)
        if not key or key in self._filters:
            return
        try:
            content = (state / "seccomp.bpf").read_bytes()
        except FileNotFoundError:
            return
        if content and len(content) % _INSTRUCTION_SIZE == 0 and len(content) <= _MAX_INSTRUCTIONS * _INSTRUCTION_SIZE:
            # Profiles of users come and go; those used most were learnt anew soonest.
            while len(self._filters) >= _MAX_FILTERS:
                self._filters.pop(next(iter(self._filters)))
            self._filters[key] = base64.b64encode(content).decode()


def _key(config: Mapping[str, object]) -> str:
    linux = config.get("linux")
    profile = linux.get("seccomp") if isinstance(linux, dict) else None
    return json.dumps(profile, sort_keys=True) if profile else ""
