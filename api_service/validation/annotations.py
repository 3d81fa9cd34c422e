"""Annotations, which reach the OCI runtime as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from common.errors import Violation

# Runtimes take orders from annotations of these names: hooks, handlers, ids and groups to keep (crun(1)), and
# properties of systemd units, which can run programs as root on the host (CVE-2024-3154).
_RUNTIME_PREFIXES = ("run.oci.", "io.crun.", "module.wasm.", "org.criu.", "org.systemd.")
_KEY = re.compile(r"[!-~]{1,255}")


def validate_annotations(annotations: Mapping[str, str], field: str) -> list[Violation]:
    return [
        Violation(field=f"{field}[{json.dumps(key)}]", description=why)
        for key, value in annotations.items()
        if key and (why := _fault(key, value)) is not None
    ]


def _fault(key: str, value: str) -> str | None:
    if not _KEY.fullmatch(key):
        return "a name is one word of at most 255 printable ASCII characters, as 'org.example.owner'"
    if "\0" in value:
        return "the value holds a NUL character; take it out"
    for prefix in _RUNTIME_PREFIXES:
        if key.startswith(prefix):
            return f"names beginning with '{prefix}' command the OCI runtime and are not for containers to set"
    return None
