"""Opening a path of a container's root filesystem without leaving it through symlinks."""

from __future__ import annotations

import os
from pathlib import Path

from executor_service.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2


def open_in_root(root: Path | int, path: str, *, flags: int, follow_symlinks: bool = True) -> int:
    """Open `path` as a process whose root is `root` would, and return the descriptor (close-on-exec).

    With `follow_symlinks` false a symlink anywhere in the path is refused (ELOOP). Blocks; raises OSError.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if follow_symlinks else RESOLVE_NO_SYMLINKS)
    if isinstance(root, int):
        return openat2(root, os.fsencode(path), flags=flags, resolve=resolve)
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(directory, os.fsencode(path), flags=flags, resolve=resolve)
    finally:
        os.close(directory)
