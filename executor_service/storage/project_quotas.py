"""Whether the kernel can hold a directory to a size: project quotas (quotactl(2), ext4(5), xfs(5))."""

from __future__ import annotations

import errno
import gzip
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from executor_service import kernel

# include/uapi/linux/magic.h, and what a kernel is built with to have project quotas there (fs/quota/Kconfig,
# fs/xfs/Kconfig)
_FILE_SYSTEMS: Mapping[int, tuple[str, str]] = {
    0xEF53: ("ext4", "CONFIG_QFMT_V2"),
    0x58465342: ("xfs", "CONFIG_XFS_QUOTA"),
}


def quota_obstacle(directory: Path) -> str:
    """Why a directory there cannot be held to a size, in half a sentence. Blocks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = kernel.filesystem_type(descriptor)
        if number not in _FILE_SYSTEMS:
            return f"{directory} is neither on ext4 nor on xfs, which alone have project quotas"
        name, feature = _FILE_SYSTEMS[number]
        try:
            kernel.query_project_quota(descriptor)
        except OSError as error:
            if error.errno == errno.ENOSYS or _is_built_without(feature):
                return f"the node's kernel was built without {feature}, so there are no project quotas on {name}"
            return f"project quotas are off on the {name} at {directory}: {error.strerror}; mount it with prjquota"
        return f"project quotas are on at {directory}, but this version of the executor does not set any"
    finally:
        os.close(descriptor)


def _is_built_without(feature: str) -> bool:
    """Only when the kernel's configuration says so."""
    try:
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    except OSError:
        try:
            text = Path(f"/boot/config-{platform.release()}").read_text()
        except OSError:
            return False
    return not any(line in (f"{feature}=y", f"{feature}=m") for line in text.splitlines())
