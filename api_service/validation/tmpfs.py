"""Options of file systems in memory, tmpfs(5). Source of the defaults: Docker's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from api_service.validation.mount_paths import parse_destination
from common.errors import Violation

_MAX_BYTES = 4095  # a page without its NUL
_DEFAULTS = ("noexec", "nosuid", "nodev")
_DEFAULT_MODE = "mode=1777"
_PAIRS = (
    *(("ro", "rw"), ("suid", "nosuid"), ("dev", "nodev"), ("exec", "noexec"), ("sync", "async"), ("atime", "noatime")),
    *(("diratime", "nodiratime"), ("relatime", "norelatime"), ("strictatime", "nostrictatime")),
)
_OPPOSITES = {word: pair for pair in _PAIRS for word in pair}
_FLAGS = frozenset({*_OPPOSITES, "dirsync"})
_SIZE = re.compile(r"[0-9]{1,18}[kKmMgG%]?")
_VALUES = {
    "size": (_SIZE, "bytes, with k, m, g or % behind them if you like"),
    "nr_blocks": (_SIZE, "a number"),
    "nr_inodes": (_SIZE, "a number"),
    "mode": (re.compile(r"[0-7]{1,4}"), "octal digits, for example 1777"),
    "uid": (re.compile(r"[0-9]{1,9}"), "a number"),
    "gid": (re.compile(r"[0-9]{1,9}"), "a number"),
    "mpol": (re.compile(r"[a-z0-9=:,-]{1,64}"), "a memory policy of tmpfs(5)"),
}
_KNOWN = "ro, rw, [no]exec, [no]suid, [no]dev, [no]atime, size=, mode=, uid=, gid=, nr_inodes=, nr_blocks= and mpol="


def validate_tmpfs_option(option: str) -> str | None:
    """A sentence when it is none."""
    key, equals, value = option.partition("=")
    if not equals:
        return None if option in _FLAGS else f"{option[:64]!r} is no option of a tmpfs; there are {_KNOWN}"
    if key not in _VALUES:
        return f"{option[:64]!r} is no option of a tmpfs; there are {_KNOWN}"
    pattern, rule = _VALUES[key]
    return None if pattern.fullmatch(value) else f"{option[:64]!r}: {key} takes {rule}"


def validate_tmpfs(tmpfs: Mapping[str, str], field: str) -> list[Violation]:
    """`host_config.tmpfs`."""
    violations = []
    for path, text in tmpfs.items():
        name = f"{field}[{json.dumps(path)}]"
        try:
            parse_destination(path)
        except ValueError as error:
            violations.append(Violation(field=name, description=str(error)))
        violations += [
            Violation(field=name, description=why) for _, why in tmpfs_option_faults(split_tmpfs_options(text))
        ]
    return violations


def tmpfs_option_faults(options: Sequence[str]) -> list[tuple[int | None, str]]:
    """(index, sentence) of every option that is none; without an index when they are too many to be told one by one."""
    size = sum(len(option) + 1 for option in options)
    if size > _MAX_BYTES:
        return [(None, f"the options have {size} characters; the kernel takes {_MAX_BYTES} (mount(2))")]
    faults = ((index, validate_tmpfs_option(option)) for index, option in enumerate(options))
    return [(index, why) for index, why in faults if why is not None]


def split_tmpfs_options(text: str) -> list[str]:
    return [option for option in text.split(",") if option]


def tmpfs_options(given: Sequence[str]) -> tuple[str, ...]:
    """All options: the defaults, then what was given, of which the later wins."""
    options: dict[str, str] = {}
    for option in (*_DEFAULTS, _DEFAULT_MODE, *given):
        key = option.partition("=")[0]
        for opposite in _OPPOSITES.get(key, ()):
            options.pop(opposite, None)
        options.pop(key, None)
        options[key] = option
    return tuple(options.values())
