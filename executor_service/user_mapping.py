"""Which user ids a container's are on the node: the setting `userns_remap`, and the arithmetic (user_namespaces(7)).

Id 0 of the container is `first_uid` of the node, and so on for `count` ids; whoever owns a file outside of them is
nobody (65534) inside. On disk, in layers and volumes, files keep the container's own ids: mounts map them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import InvalidArgument

NOBODY = 65534  # /proc/sys/kernel/overflowuid
_FEWEST = 65536  # ids: 65534 is in every image
_HIGHEST = 2**32 - 2  # 2^32 - 1 means no id, chown(2)
_RANGE = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMapping:
    first_uid: int
    first_gid: int
    count: int

    @property
    def uid_map(self) -> str:
        """A line of /proc/<pid>/uid_map."""
        return f"0 {self.first_uid} {self.count}"

    @property
    def gid_map(self) -> str:
        return f"0 {self.first_gid} {self.count}"

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The node's ids. Raises InvalidArgument for one that the container does not have."""
        for kind, number in (("user", uid), ("group", gid)):
            if not 0 <= number < self.count:
                raise InvalidArgument(f"the {kind} id {number} is not one of the container's, 0 to {self.count - 1}")
        return self.first_uid + uid, self.first_gid + gid

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The container's ids; nobody's for what is not its own."""
        return _inside(uid, self.first_uid, self.count), _inside(gid, self.first_gid, self.count)


def configured_mapping(
    setting: str, *, subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")
) -> UserMapping | None:
    """`setting` is empty, `<first uid>:<count>` (the same for groups), or a user whose ids stand in subuid(5) and
    subgid(5), the first line of each. Blocks; raises InvalidArgument."""
    if not setting:
        return None
    if match := _RANGE.fullmatch(setting):
        first, count = map(int, match.groups())
        return _checked(setting, UserMapping(first_uid=first, first_gid=first, count=count))
    if not _NAME.fullmatch(setting):
        raise _refused(setting, "it must be a user's name or <first uid>:<count>, as 100000:65536")
    first_uid, uids = _subordinate(setting, subuid)
    first_gid, gids = _subordinate(setting, subgid)
    return _checked(setting, UserMapping(first_uid=first_uid, first_gid=first_gid, count=min(uids, gids)))


def mapping_of(pid: int) -> UserMapping | None:
    """That of a process, which may be older than the setting; None when it has the node's own ids. Blocks; raises
    OSError."""
    first_uid, uids = _first_line(Path(f"/proc/{pid}/uid_map"))
    first_gid, gids = _first_line(Path(f"/proc/{pid}/gid_map"))
    return UserMapping(first_uid=first_uid, first_gid=first_gid, count=min(uids, gids)) if first_uid else None


def _first_line(path: Path) -> tuple[int, int]:
    inside, outside, count = map(int, path.read_text().split()[:3])
    return outside - inside, count


def _inside(number: int, first: int, count: int) -> int:
    return number - first if first <= number < first + count else NOBODY


def _subordinate(user: str, path: Path) -> tuple[int, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise _refused(user, f"{path} cannot be read: {error.strerror}") from error
    for line in lines:
        name, _, ids = line.strip().partition(":")
        if name == user:
            if match := _RANGE.fullmatch(ids):
                return int(match[1]), int(match[2])
            raise _refused(user, f"{path} has the line {line!a} for it, which should be {user}:<first id>:<count>")
    raise _refused(user, f"{path} has no line for it; add {user}:100000:65536 there, or give 100000:65536 here")


def _checked(setting: str, mapping: UserMapping) -> UserMapping:
    if mapping.count < _FEWEST:
        raise _refused(setting, f"{mapping.count} ids are too few; images use those up to {_FEWEST - 1}")
    for first in (mapping.first_uid, mapping.first_gid):
        if first < _FEWEST:
            raise _refused(setting, f"it begins at {first}, among the node's own ids; begin at {_FEWEST} or higher")
        if first + mapping.count - 1 > _HIGHEST:
            raise _refused(setting, f"it ends at {first + mapping.count - 1}; the highest id there is is {_HIGHEST}")
    return mapping


def _refused(setting: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"userns_remap {setting[:80]!a}: {why}")
