"""Annotations, which reach the OCI runtime as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping

from common.errors import Violation

# Runtimes take orders from annotations of these names: hooks, handlers, ids and groups to keep (crun(1)), and
# properties of systemd units, which can run programs as root on the host (CVE-2024-3154).
_RUNTIME_PREFIXES = ("run.oci.", "org.systemd.property.", "io.crun.")


def validate_annotations(annotations: Mapping[str, str], field: str) -> list[Violation]:
    return [
        Violation(field=f"{field}[{json.dumps(key)}]", description=why)
        for key in annotations
        if (why := _fault(key)) is not None
    ]


def _fault(key: str) -> str | None:
    for prefix in _RUNTIME_PREFIXES:
        if key.startswith(prefix):
            return f"names beginning with '{prefix}' command the OCI runtime and are not for containers to set"
    return None
