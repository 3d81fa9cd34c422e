"""Seccomp profiles as an OCI runtime takes them (runtime-spec, config-linux.md#seccomp).

A profile in Docker's form is an allow-list with rules that depend on the capabilities held, the machine and the kernel;
here it is narrowed to one of each. `seccomp_default.json` is the default: what it does not list fails with EPERM,
clone3 with ENOSYS so that C libraries fall back to clone, whose flags can be inspected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path

from common.errors import Unimplemented
from common.seccomp_profile import Argument, Condition, Profile, Rule, parse_profile

_DEFAULT = Path(__file__).with_name("seccomp_default.json")
_PLAIN_ALLOW = "SCMP_ACT_ALLOW"
# uname -m -> libseccomp's name, and the one that profiles use in their conditions.
_MACHINES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "i686": ("SCMP_ARCH_X86", "x86"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "armv7l": ("SCMP_ARCH_ARM", "arm"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
    "loongarch64": ("SCMP_ARCH_LOONGARCH64", "loong64"),
}


def default_seccomp(capabilities: frozenset[str], machine: str, kernel: tuple[int, int]) -> Mapping[str, object]:
    """The OCI seccomp object of the default profile for a container holding `capabilities` on `machine` (uname -m) and
    `kernel` (major, minor). The result is shared: never change it. Raises Unimplemented on a machine the profile does
    not know."""
    if machine not in _MACHINES or _MACHINES[machine][0] not in _default_architectures():
        raise Unimplemented(f"there is no seccomp profile for the machine {machine!r}; known are x86_64 and aarch64")
    return custom_seccomp(_default_text(), capabilities, machine, kernel)


@lru_cache(maxsize=64)
def custom_seccomp(
    text: str, capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
) -> Mapping[str, object]:
    """The same for a profile of the user's, JSON. Raises ValueError with a sentence for what is no profile."""
    profile = parse_profile(text)
    own, name = _MACHINES.get(machine, ("", machine))
    found: dict[str, object] = {"defaultAction": profile.default_action}
    if profile.default_errno is not None:
        found["defaultErrnoRet"] = profile.default_errno
    if own in profile.architectures:
        found["architectures"] = [own, *profile.architectures[own]]
    if profile.flags:
        found["flags"] = list(profile.flags)
    applicable = (
        rule for rule in profile.rules if _applies(rule, capabilities=capabilities, architecture=name, kernel=kernel)
    )
    found["syscalls"] = _merged(profile, applicable)
    return found


@cache
def _default_text() -> str:
    return _DEFAULT.read_text()


@cache
def _default_architectures() -> frozenset[str]:
    return frozenset(parse_profile(_default_text()).architectures)


def _applies(rule: Rule, *, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]) -> bool:
    includes, excludes = rule.includes, rule.excludes
    if not capabilities >= includes.caps or (includes.arches and architecture not in includes.arches):
        return False
    if not _reached(includes, kernel, otherwise=True) or _reached(excludes, kernel, otherwise=False):
        return False
    return not capabilities & excludes.caps and architecture not in excludes.arches


def _reached(condition: Condition, kernel: tuple[int, int], *, otherwise: bool) -> bool:
    return otherwise if condition.kernel is None else kernel >= condition.kernel


def _merged(profile: Profile, rules: Iterable[Rule]) -> list[dict[str, object]]:
    """All unconditional allows in one rule: fewer objects for the runtime to read, and the profile in one glance. Where
    allowing is the default a runtime refuses rules that say the same again."""
    names: dict[str, None] = {}
    others: list[dict[str, object]] = []
    for rule in rules:
        if rule.action == _PLAIN_ALLOW and not rule.args:
            names.update(dict.fromkeys(rule.names))
        elif rule.action != profile.default_action or rule.args or rule.errno != profile.default_errno:
            others.append(_rule(rule))
    if not names or profile.default_action == _PLAIN_ALLOW:
        return others
    return [{"names": list(names), "action": _PLAIN_ALLOW}, *others]


def _rule(rule: Rule) -> dict[str, object]:
    result: dict[str, object] = {"names": list(rule.names), "action": rule.action}
    if rule.errno is not None:
        result["errnoRet"] = rule.errno
    if rule.args:
        result["args"] = [_argument(argument) for argument in rule.args]
    return result


def _argument(argument: Argument) -> dict[str, object]:
    return {
        "index": argument.index,
        "value": argument.value,
        "valueTwo": argument.value_two,
        "op": argument.op,
    }
