"""`security_opt`: Docker's words for what a container's process may do. Source: moby daemon/daemon_unix.go,
docker run(1), --security-opt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api_service.validation.host_facts import HostFacts
from common.errors import Violation
from common.seccomp_profile import parse_profile

UNCONFINED = "unconfined"
BUILTIN = "builtin"

# `:` is Docker's older separator.
_OPTION = re.compile(r"([a-z-]+)(?:[=:](.*))?", re.DOTALL)
_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})
_APPARMOR_NAME = re.compile(r"[!-~]{1,255}")
_KNOWN = (
    "no-new-privileges[=true|false], seccomp=unconfined|builtin|<profile as JSON>, apparmor=<profile>|unconfined, "
    "label=disable, systempaths=unconfined, writable-cgroups[=true|false]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """`seccomp`: empty when nothing was said, `unconfined`, `builtin`, or a profile as JSON. `apparmor`: a profile's
    name, or empty."""

    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    system_paths_unconfined: bool = False
    writable_cgroups: bool = False


def security_options(options: Sequence[str]) -> SecurityOptions:
    """Of valid ones."""
    said = dict(_split(option) for option in options)
    apparmor = said.get("apparmor") or ""
    return SecurityOptions(
        no_new_privileges=_is_on(said, "no-new-privileges"),
        seccomp=said.get("seccomp") or "",
        apparmor="" if apparmor == UNCONFINED else apparmor,
        system_paths_unconfined="systempaths" in said,
        writable_cgroups=_is_on(said, "writable-cgroups"),
    )


def validate_security_opt(options: Sequence[str], facts: HostFacts, field: str) -> list[Violation]:
    violations: list[Violation] = []
    seen: set[str] = set()
    for index, option in enumerate(options):
        path = f"{field}[{index}]"
        key, value = _split(option)
        why = f"{key!r} is given twice; give it once" if key in seen else _fault(key, value, option, facts)
        if why:
            violations.append(Violation(field=path, description=why))
        seen.add(key)
    return violations


def _split(option: str) -> tuple[str, str | None]:
    match = _OPTION.fullmatch(option)
    return (match[1], match[2]) if match else (option, None)


def _fault(key: str, value: str | None, option: str, facts: HostFacts) -> str | None:
    match key:
        case "no-new-privileges" | "writable-cgroups":
            known = value is None or value.lower() in _TRUE | _FALSE
            return None if known else f"{value!r:.64} is neither true nor false"
        case "seccomp":
            return _seccomp_fault(value, facts)
        case "apparmor":
            return _apparmor_fault(value, facts)
        case "label":
            return None if value == "disable" else "containers are given no SELinux label; 'label=disable' says so"
        case "systempaths":
            return None if value == UNCONFINED else "must be 'systempaths=unconfined', or left out"
        case _:
            return f"{option[:64]!r} is not a security option; known are {_KNOWN}"


def _seccomp_fault(value: str | None, facts: HostFacts) -> str | None:
    if value in (UNCONFINED, BUILTIN):
        return None
    if not value or not value.lstrip().startswith("{"):
        return "seccomp: give 'unconfined', 'builtin', or the profile itself as JSON, not the name of its file"
    if not facts.seccomp:
        return "seccomp: the node's kernel cannot filter system calls; leave the profile out"
    try:
        parse_profile(value)
    except ValueError as error:
        return f"seccomp: {error}"
    return None


def _apparmor_fault(value: str | None, facts: HostFacts) -> str | None:
    if value == UNCONFINED:
        return None
    if not value or not _APPARMOR_NAME.fullmatch(value):
        return "apparmor: give the name of a loaded profile, or 'unconfined'"
    if not facts.apparmor:
        return f"apparmor: the node has no AppArmor for the profile {value[:64]!r}; leave it out, or give 'unconfined'"
    return None


def _is_on(said: dict[str, str | None], key: str) -> bool:
    return key in said and (said[key] is None or str(said[key]).lower() in _TRUE)
