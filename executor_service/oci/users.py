"""Docker's user grammar, resolved in the container's own /etc/passwd and /etc/group (passwd(5), group(5)).

The two files come from an image and are hostile: they are opened without leaving the root filesystem, must be regular
files, and are read up to a cap. The runtime is given numbers only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.oci.open_in_root import open_in_root
from executor_service.user_mapping import UserMapping

MAX_FILE_SIZE = 1024 * 1024  # bytes; a real passwd file has a few thousand
MAX_ID = 2**31 - 1
MAX_GROUPS = 65536  # NGROUPS_MAX, setgroups(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedUser:
    """Numeric ids for the OCI `process.user`, and the HOME of passwd (`/` when the user has no entry)."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class _PasswdEntry:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupEntry:
    name: str
    gid: int
    members: frozenset[str]


def resolve_user(rootfs: Path, user: str, group_add: Sequence[str] = ()) -> ResolvedUser:
    """Resolve `uid`, `uid:gid`, `name`, `name:group` or empty (root), and more groups, names or numbers. Blocks: call
    it in a worker thread.

    An unknown number is taken as it is, an unknown name is InvalidArgument. Supplementary groups are the ones that list
    the user, none of them when a group is given, and those of `group_add`. The primary group is always among them
    (CVE-2022-36109).
    """
    user_part, _, group_part = user.partition(":")
    entry = _find_user(rootfs, user_part or "0", spelled=user)
    gid = entry.gid
    additional: tuple[int, ...] = ()
    if group_part:
        gid = _find_group(rootfs, group_part, spelled=user)
    elif entry.name:
        additional = _groups_of(rootfs, entry.name)
    additional += _more_groups(rootfs, group_add)
    for number in (entry.uid, gid, *additional):
        if not 0 <= number <= MAX_ID:
            raise _refused(
                f"user {user!r} resolves to the id {number}, but ids go from 0 to {MAX_ID}; choose a smaller one"
            )
    return ResolvedUser(
        uid=entry.uid,
        gid=gid,
        additional_gids=tuple(dict.fromkeys((gid, *additional))),
        home=_checked_home(entry.home, user),
    )


def check_mapped(user: ResolvedUser, mapping: UserMapping, spelled: str) -> None:
    """Raises InvalidArgument for ids that a container with such a mapping does not have."""
    for number in (user.uid, user.gid, *user.additional_gids):
        if number >= mapping.count:
            raise _refused(
                f"user {spelled!r} resolves to the id {number}, but this node remaps users and gives a container the "
                f"ids 0 to {mapping.count - 1}; choose a smaller one, or give userns_mode 'host'"
            )


def _find_user(rootfs: Path, wanted: str, *, spelled: str) -> _PasswdEntry:
    number = _number(wanted)
    for entry in _passwd(rootfs):
        if entry.uid == number if number is not None else entry.name == wanted:
            return entry
    if number is not None:
        return _PasswdEntry(name="", uid=number, gid=0, home="/")
    raise _refused(f"user {spelled!r}: no {wanted!r} in the container's /etc/passwd; use a name it lists, or a number")


def _find_group(rootfs: Path, wanted: str, *, spelled: str) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for entry in _groups(rootfs):
        if entry.name == wanted:
            return entry.gid
    raise _refused(f"user {spelled!r}: no {wanted!r} in the container's /etc/group; use a name it lists, or a number")


def _more_groups(rootfs: Path, group_add: Sequence[str]) -> tuple[int, ...]:
    found: list[int] = []
    for index, name in enumerate(group_add):
        number = _number(name)
        if number is None:
            number = next((entry.gid for entry in _groups(rootfs) if entry.name == name), None)
        if number is None or number > MAX_ID:
            why = (
                f"no {name!r} in the container's /etc/group; use a name it lists, or a number"
                if number is None
                else f"{name} is larger than {MAX_ID}, the largest id there is"
            )
            raise InvalidArgument(violations=[Violation(field=f"host_config.group_add[{index}]", description=why)])
        found.append(number)
    return tuple(found)


def _groups_of(rootfs: Path, name: str) -> tuple[int, ...]:
    found = tuple(entry.gid for entry in _groups(rootfs) if name in entry.members)
    if len(found) > MAX_GROUPS:
        raise _refused(
            f"the container's /etc/group puts {name!r} in {len(found)} groups; the kernel's limit is {MAX_GROUPS}"
        )
    return found


def _passwd(rootfs: Path) -> Iterator[_PasswdEntry]:
    for fields in _records(rootfs, "/etc/passwd", minimum=4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            yield _PasswdEntry(
                name=fields[0], uid=uid, gid=gid, home=fields[5] if len(fields) > 5 and fields[5] else "/"
            )


def _groups(rootfs: Path) -> Iterator[_GroupEntry]:
    for fields in _records(rootfs, "/etc/group", minimum=3):
        gid = _number(fields[2])
        if gid is not None:
            members = frozenset(filter(None, fields[3].split(","))) if len(fields) > 3 else frozenset()
            yield _GroupEntry(name=fields[0], gid=gid, members=members)


def _records(rootfs: Path, path: str, *, minimum: int) -> Iterator[list[str]]:
    for line in _read_regular(rootfs, path).decode(errors="surrogateescape").split("\n"):
        fields = line.strip(" \t\r").split(":")
        if len(fields) >= minimum and fields[0] and not line.startswith("#"):
            yield fields


def _read_regular(rootfs: Path, path: str) -> bytes:
    """The file's content, empty when there is none: an image without passwd is common and legal."""
    try:
        # O_NONBLOCK, or opening a FIFO of the image would wait for a writer for ever.
        descriptor = open_in_root(rootfs, path, flags=os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise _refused(
            f"the container's {path} cannot be opened: {error.strerror}; the image must hold a regular file"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _refused(f"the container's {path} is not a regular file; replace it in the image")
        content = file.read(MAX_FILE_SIZE + 1)
    if len(content) > MAX_FILE_SIZE:
        raise _refused(
            f"the container's {path} is larger than {MAX_FILE_SIZE} bytes; shorten it, or give no user by name"
        )
    return content


def _number(text: str) -> int | None:
    # isascii: int() would take other scripts' digits, which no passwd file means; the length caps the work.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _checked_home(home: str, user: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in home):
        raise _refused(f"user {user!r}: the home directory in the container's /etc/passwd holds control characters")
    return home


def _refused(description: str) -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field="config.user", description=description)], reason="INVALID_USER")
