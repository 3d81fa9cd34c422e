"""Owners in archives are the container's; those that the node sees of a container with remapped users are others.

A file's capabilities carry the root user they are good for, if that is not the node's (`vfs_ns_cap_data`,
capabilities(7) and linux/capability.h).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from executor_service.user_mapping import UserMapping

_PLAIN = struct.Struct("<I16s")  # magic and flags, the two sets
_OF_ROOT = struct.Struct("<I16sI")  # ..., the user id of root
_REVISION = 0xFF000000
_REVISION_2, _REVISION_3 = 0x02000000, 0x03000000


@dataclass(frozen=True, slots=True)
class Owners:
    """Between the two; without a mapping they are the same."""

    mapping: UserMapping | None = None

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        return (uid, gid) if self.mapping is None else self.mapping.inside(uid, gid)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Raises InvalidArgument for one that the container does not have."""
        return (uid, gid) if self.mapping is None else self.mapping.outside(uid, gid)

    def capability_inside(self, value: bytes) -> bytes:
        """Of the attribute `security.capability`; what is not the container's root's stays as it is."""
        if self.mapping is None or len(value) != _OF_ROOT.size:
            return value
        magic, sets, root = _OF_ROOT.unpack(value)
        if magic & _REVISION != _REVISION_3 or root != self.mapping.first_uid:
            return value
        return _PLAIN.pack(magic & ~_REVISION | _REVISION_2, sets)

    def capability_outside(self, value: bytes) -> bytes:
        if self.mapping is None or len(value) != _PLAIN.size:
            return value
        magic, sets = _PLAIN.unpack(value)
        if magic & _REVISION != _REVISION_2:
            return value
        return _OF_ROOT.pack(magic & ~_REVISION | _REVISION_3, sets, self.mapping.first_uid)


AS_THEY_ARE = Owners()
