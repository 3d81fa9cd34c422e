"""When a file was made: statx(2), which Python's os.stat leaves out."""

from __future__ import annotations

import ctypes
import os
import struct

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_SIZE = 256  # bytes of a struct statx
_MASK, _BIRTH = struct.Struct("=I"), struct.Struct("=qI")  # which fields are there; seconds, nanoseconds
_BIRTH_AT = 80

_libc = ctypes.CDLL(None, use_errno=True)


def born(descriptor: int) -> int:
    """Nanoseconds since the epoch; 0 on a filesystem that does not know. Raises OSError."""
    found = ctypes.create_string_buffer(_SIZE)
    if _libc.statx(descriptor, b"", _AT_EMPTY_PATH, ctypes.c_uint(_STATX_BTIME), found) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    (mask,) = _MASK.unpack_from(found)
    if not mask & _STATX_BTIME:
        return 0
    seconds, nanoseconds = _BIRTH.unpack_from(found, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
