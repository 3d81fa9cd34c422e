"""Seccomp profiles as a client gives them: JSON in Docker's form, or its OCI subset. Source: moby profiles/seccomp,
OCI runtime-spec config-linux.md#seccomp, seccomp(2), libseccomp's seccomp_rule_add(3).

Both services read them with this: one to answer at once, the other because it trusts nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_SIZE = 256 * 1024  # bytes of JSON; Docker's own has 12 KiB

# Without SCMP_ACT_NOTIFY: its other end would be a socket of the node, chosen by the profile.
_ACTIONS = frozenset(
    f"SCMP_ACT_{name}" for name in ("ALLOW", "ERRNO", "KILL", "KILL_THREAD", "KILL_PROCESS", "LOG", "TRACE", "TRAP")
)
_OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
_FLAGS = frozenset(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW"))
_ARCHITECTURE = re.compile(r"SCMP_ARCH_[A-Z0-9_]{2,16}")
_NAME = re.compile(r"[a-z0-9_]{1,64}")
_KERNEL = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_MAX_ERRNO = 4095
_MAX_RULES = 4096
_MAX_WORD = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`caps` are `CAP_…`, `arches` as in Go (`amd64`); `kernel`: (major, minor), None says nothing."""

    caps: frozenset[str] = frozenset()
    arches: frozenset[str] = frozenset()
    kernel: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    index: int
    value: int
    value_two: int
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Applies when all of `includes` holds, one of its architectures being enough, and nothing of `excludes`."""

    names: tuple[str, ...]
    action: str
    errno: int | None
    args: tuple[Argument, ...]
    includes: Condition
    excludes: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`architectures`: the further ones each architecture brings along; empty: nothing is said of them."""

    default_action: str
    default_errno: int | None
    architectures: Mapping[str, tuple[str, ...]]
    flags: tuple[str, ...]
    rules: tuple[Rule, ...]


def parse_profile(text: str) -> Profile:
    """Raises ValueError with a sentence about the first fault."""
    if len(text.encode(errors="surrogatepass")) > MAX_SIZE:
        raise ValueError(f"the profile is larger than {MAX_SIZE} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the profile is not JSON: {str(error)[:120]}") from error
    top = _object(document, "the profile")
    rules = _list(top, "syscalls")
    if len(rules) > _MAX_RULES:
        raise ValueError(f"syscalls: holds {len(rules)} rules, at most {_MAX_RULES} are taken")
    if top.get("listenerPath"):
        raise ValueError("listenerPath: a container's profile cannot name a socket of the node; remove it")
    return Profile(
        default_action=_word(top, "defaultAction", "defaultAction", _ACTIONS),
        default_errno=_errno(top, "defaultErrnoRet", "defaultErrnoRet"),
        architectures=_architectures(top),
        flags=tuple(_one_of(flag, f"flags[{index}]", _FLAGS) for index, flag in enumerate(_list(top, "flags"))),
        rules=tuple(_rule(rule, f"syscalls[{index}]") for index, rule in enumerate(rules)),
    )


def _rule(value: object, path: str) -> Rule:
    rule = _object(value, path)
    names = _list(rule, "names", path)
    if rule.get("name"):
        names = [rule["name"], *names]
    if not names:
        raise ValueError(f"{path}.names: must name the system calls the rule is for")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{path}.names: {str(name)[:64]!r} is not the name of a system call")
    return Rule(
        names=tuple(str(name) for name in names),
        action=_word(rule, "action", f"{path}.action", _ACTIONS),
        errno=_errno(rule, "errnoRet", f"{path}.errnoRet"),
        args=tuple(_argument(each, f"{path}.args[{index}]") for index, each in enumerate(_list(rule, "args", path))),
        includes=_condition(rule.get("includes"), f"{path}.includes"),
        excludes=_condition(rule.get("excludes"), f"{path}.excludes"),
    )


def _argument(value: object, path: str) -> Argument:
    argument = _object(value, path)
    return Argument(
        index=_number(argument.get("index"), f"{path}.index", highest=5),
        value=_number(argument.get("value", 0), f"{path}.value", highest=_MAX_WORD),
        value_two=_number(argument.get("valueTwo", 0), f"{path}.valueTwo", highest=_MAX_WORD),
        op=_word(argument, "op", f"{path}.op", _OPERATORS),
    )


def _condition(value: object, path: str) -> Condition:
    condition = _object({} if value is None else value, path)
    kernel = condition.get("minKernel") or ""
    match = _KERNEL.fullmatch(kernel) if isinstance(kernel, str) else None
    if kernel and match is None:
        raise ValueError(f"{path}.minKernel: {str(kernel)[:32]!r} is not a version like '4.8'")
    return Condition(
        caps=frozenset(_texts(condition, "caps", path)),
        arches=frozenset(_texts(condition, "arches", path)),
        kernel=(int(match[1]), int(match[2])) if match else None,
    )


def _architectures(top: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for index, each in enumerate(_list(top, "archMap")):
        entry = _object(each, f"archMap[{index}]")
        names = [entry.get("architecture"), *_list(entry, "subArchitectures", f"archMap[{index}]")]
        first, *others = (_architecture(name, f"archMap[{index}]") for name in names)
        found[first] = tuple(others)
    plain = [_architecture(name, "architectures") for name in _list(top, "architectures")]
    for name in plain:
        found[name] = tuple(other for other in plain if other != name)
    return found


def _architecture(value: object, path: str) -> str:
    if isinstance(value, str) and _ARCHITECTURE.fullmatch(value):
        return value
    raise ValueError(f"{path}: {str(value)[:64]!r} is not an architecture like 'SCMP_ARCH_X86_64'")


def _object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must be a JSON object")  # noqa: TRY004 - the caller's text is wrong, not our types
    return value


def _list(parent: Mapping[str, object], key: str, path: str = "") -> list[object]:
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{path}{'.' if path else ''}{key}: must be a list")  # noqa: TRY004 - as above
    return value


def _texts(parent: Mapping[str, object], key: str, path: str) -> list[str]:
    values = _list(parent, key, path)
    if any(not isinstance(value, str) for value in values):
        raise ValueError(f"{path}.{key}: must be a list of words")
    return [str(value) for value in values]


def _word(parent: Mapping[str, object], key: str, path: str, known: frozenset[str]) -> str:
    return _one_of(parent.get(key), path, known)


def _one_of(value: object, path: str, known: frozenset[str]) -> str:
    if isinstance(value, str) and value in known:
        return value
    said = "is missing" if value is None else f"{str(value)[:64]!r} is not known"
    raise ValueError(f"{path}: {said}; known are {', '.join(sorted(known))}")


def _errno(parent: Mapping[str, object], key: str, path: str) -> int | None:
    return None if parent.get(key) is None else _number(parent[key], path, highest=_MAX_ERRNO)


def _number(value: object, path: str, *, highest: int) -> int:
    # bool is an int to Python, not to JSON.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest:
        return value
    raise ValueError(f"{path}: {str(value)[:32]!r} is not a number from 0 to {highest}")
