"""What a refusal of the kernel means to whoever named a path inside a container. Source: errno(3), openat2(2)"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, SlipwayError, Violation
from executor_service.host_errors import host_error

CORRUPT_ARCHIVE = "CORRUPT_ARCHIVE"

_STATES = {
    errno.EROFS: ("READ_ONLY", "the file system there is read-only"),
    errno.ELOOP: ("TOO_MANY_LINKS", "too many symbolic links on the way"),
    errno.EBUSY: (
        "MOUNT_POINT",
        "something is mounted there, which cannot be replaced; write into it instead",
    ),
    errno.EXDEV: ("LEAVES_TARGET", "a symbolic link or hard link on the way leaves the directory it is unpacked into"),
    errno.EPERM: ("NOT_PERMITTED", "the kernel does not allow it there"),
    errno.EACCES: ("NOT_PERMITTED", "the kernel does not allow it there"),
    errno.ENOTEMPTY: ("CHANGING", "the container changes it at the same time"),
}


@contextmanager
def path_errors(container_id: str, path: str) -> Iterator[None]:
    """Raises NotFound, InvalidArgument, FailedPrecondition, ResourceExhausted and their kin for an OSError."""
    try:
        yield
    except OSError as error:
        raise _refusal(error, container_id, path) from error


def not_a_directory(path: str) -> InvalidArgument:
    why = f"{path!r} is not a directory; give one that exists, or the path without the slash at its end"
    return InvalidArgument(violations=[Violation(field="path", description=why)], reason="NOT_A_DIRECTORY")


def corrupt_archive(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason=CORRUPT_ARCHIVE)


def _refusal(error: OSError, container_id: str, path: str) -> SlipwayError:
    where = f"container {container_id!r}: {path!r}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(
            f"{where}: there is no such file or directory in the container",
            resource_type="path",
            resource_name=path,
            reason="PATH_NOT_FOUND",
        )
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        why = f"{path!r}: {error.strerror}"
        return InvalidArgument(violations=[Violation(field="path", description=why)])
    if error.errno in _STATES:
        reason, why = _STATES[error.errno]
        return FailedPrecondition(
            f"{where}: {why}", resource_type="container", resource_name=container_id, reason=reason
        )
    if (shortage := host_error(error, where)) is not None:
        return shortage
    return Aborted(f"{where}: {error.strerror}; the container may have changed it meanwhile, repeat the call")
