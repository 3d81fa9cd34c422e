"""What the executor demands of mounts, whoever asks. Pure. Fields as in `slipway.executor.v1.ContainerSpec`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from executor_service.mounts import BIND_FLAGS, PROPAGATIONS, Mount, MountType
from executor_service.oci.user_mounts import PROC_FILES
from executor_service.storage.volumes import VOLUME_NAME

_MAX_PATH = 4095  # bytes
_IMAGE_ID = re.compile(r"sha256:[a-f0-9]{64}")
_FLAGS = frozenset(
    (
        *(
            "ro",
            "rw",
            "suid",
            "nosuid",
            "dev",
            "nodev",
            "exec",
            "noexec",
            "sync",
            "async",
            "dirsync",
            "atime",
            "noatime",
        ),
        *("diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    )
)
_VALUES = re.compile(
    r"(?:size|nr_blocks|nr_inodes)=[0-9]+[kKmMgG%]?|mode=[0-7]{1,4}|[ug]id=[0-9]{1,10}|mpol=[a-z0-9=:,-]+"
)

_Rules = Iterator[tuple[str, str]]


def mount_rules(mounts: Sequence[Mount]) -> _Rules:
    """(field, sentence) of every broken rule."""
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        field = f"mounts[{index}]"
        yield from _target(mount.target, f"{field}.target")
        if mount.target in seen:
            yield f"{field}.target", f"{mount.target!a} is the target of another mount, too"
        seen.add(mount.target)
        yield from _source(mount, f"{field}.source")
        yield from _options(mount, field)


def _target(target: str, field: str) -> _Rules:
    if not _is_plain(target) or target == "/":
        yield field, f"{target!a:.300} must be an absolute path, without '.' and '..', and not '/'"
    elif (target == "/proc" or target.startswith("/proc/")) and target not in PROC_FILES:
        yield field, f"{target!a:.300} must not be in /proc: what is there decides what can be protected"


def _source(mount: Mount, field: str) -> _Rules:
    match mount.type:
        case MountType.BIND:
            if not mount.source.startswith("/") or "\0" in mount.source or _size(mount.source) > _MAX_PATH:
                yield field, f"{mount.source!a:.300} must be an absolute path of the node"
        case MountType.VOLUME:
            if not VOLUME_NAME.fullmatch(mount.source):
                yield field, f"{mount.source!a:.300} must be the name of a volume"
        case MountType.IMAGE:
            if not _IMAGE_ID.fullmatch(mount.source):
                yield field, f"{mount.source!a:.300} must be the id of an image"
            if not mount.read_only:
                yield f"{field.rpartition('.')[0]}.read_only", "an image can be mounted read-only alone"
        case MountType.TMPFS:
            if mount.source:
                yield field, "must be empty: a tmpfs has no source"


def _options(mount: Mount, field: str) -> _Rules:
    if mount.propagation and mount.propagation not in PROPAGATIONS:
        yield f"{field}.propagation", f"{mount.propagation!a:.60} must be one of {', '.join(sorted(PROPAGATIONS))}"
    if (mount.read_only_non_recursive or mount.read_only_force_recursive) and not mount.read_only:
        yield f"{field}.read_only", "must be set for the rules of what is mounted below"
    if mount.subpath and (mount.subpath.startswith("/") or ".." in mount.subpath.split("/") or "\0" in mount.subpath):
        yield f"{field}.subpath", f"{mount.subpath!a:.300} must be relative and without '..'"
    for index, option in enumerate(mount.options):
        if mount.type is MountType.BIND and option not in BIND_FLAGS:
            yield (
                f"{field}.options[{index}]",
                f"{option!a:.100} is no option of a bind: {', '.join(sorted(BIND_FLAGS))}",
            )
        elif option not in _FLAGS and not _VALUES.fullmatch(option):
            yield f"{field}.options[{index}]", f"{option!a:.100} is no option of a tmpfs"
    foreign = {
        MountType.BIND: ("subpath", "populate"),
        MountType.VOLUME: ("propagation", "non_recursive", "create_source", "options"),
        MountType.TMPFS: ("propagation", "non_recursive", "create_source", "populate", "subpath"),
        MountType.IMAGE: ("propagation", "non_recursive", "create_source", "populate", "options"),
    }
    for name in foreign[mount.type]:
        if getattr(mount, name):
            yield f"{field}.{name}", f"does not belong to a mount of type {mount.type.value}"


def _is_plain(path: str) -> bool:
    """Absolute, and written as it is resolved."""
    plain = "\0" not in path and _size(path) <= _MAX_PATH
    return plain and path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path


def _size(path: str) -> int:
    return len(path.encode(errors="surrogateescape"))
