"""The default seccomp profile, in Docker's shape: an allow-list with groups that depend on the capabilities held.

`seccomp_default.json` is the profile; here it is narrowed to one machine and one capability set, and becomes the OCI
`linux.seccomp` object (runtime-spec, config-linux.md#seccomp). What is not listed fails with EPERM, clone3 with ENOSYS
so that C libraries fall back to clone, whose flags can be inspected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TypedDict

from common.errors import Unimplemented

_PROFILE = Path(__file__).with_name("seccomp_default.json")


class _Condition(TypedDict, total=False):
    caps: list[str]
    arches: list[str]


class _Argument(TypedDict, total=False):
    index: int
    value: int
    valueTwo: int
    op: str


class _Rule(TypedDict, total=False):
    names: list[str]
    action: str
    errnoRet: int
    args: list[_Argument]
    includes: _Condition
    excludes: _Condition


class _Architecture(TypedDict):
    architecture: str
    machine: str
    name: str
    subArchitectures: list[str]


class _Profile(TypedDict):
    defaultAction: str
    defaultErrnoRet: int
    archMap: list[_Architecture]
    syscalls: list[_Rule]


@cache
def default_seccomp(capabilities: frozenset[str], machine: str) -> Mapping[str, object]:
    """The OCI seccomp object for a container holding `capabilities` on `machine` (uname -m). The result is shared:
    never change it. Raises Unimplemented on a machine the profile does not know."""
    profile = _load()
    for architecture in profile["archMap"]:
        if architecture["machine"] == machine:
            break
    else:
        raise Unimplemented(f"there is no seccomp profile for the machine {machine!r}; known are x86_64 and aarch64")
    applicable = (rule for rule in profile["syscalls"] if _applies(rule, capabilities, architecture["name"]))
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [architecture["architecture"], *architecture["subArchitectures"]],
        "syscalls": [_rule(rule) for rule in _merged(applicable)],
    }


@cache
def _load() -> _Profile:
    profile: _Profile = json.loads(_PROFILE.read_text())
    return profile


def _applies(rule: _Rule, capabilities: frozenset[str], architecture: str) -> bool:
    includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
    if not capabilities.issuperset(includes.get("caps", ())):
        return False
    if "arches" in includes and architecture not in includes["arches"]:
        return False
    return not capabilities.intersection(excludes.get("caps", ())) and architecture not in excludes.get("arches", ())


def _merged(rules: Iterable[_Rule]) -> list[_Rule]:
    """All unconditional allows in one rule: fewer objects for the runtime to read, and the profile in one glance."""
    names: dict[str, None] = {}
    others: list[_Rule] = []
    for rule in rules:
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule:
            names.update(dict.fromkeys(rule["names"]))
        else:
            others.append(rule)
    return [_Rule(names=list(names), action="SCMP_ACT_ALLOW"), *others]


def _rule(rule: _Rule) -> dict[str, object]:
    result: dict[str, object] = {"names": rule["names"], "action": rule["action"]}
    if "errnoRet" in rule:
        result["errnoRet"] = rule["errnoRet"]
    if "args" in rule:
        result["args"] = rule["args"]
    return result
