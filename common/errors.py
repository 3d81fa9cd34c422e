"""The errors both services speak. They know nothing of gRPC: `common.rpc_status` is the one table between the two.

Each class is one fault class of the API. `reason` is a stable UPPER_SNAKE word for programs, `metadata` is for
programs too; the message is for people and names the field, the value, the rule and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken rule: the path of the request's field (`host_config.shm_size`) and a sentence saying what to do."""

    field: str
    description: str


class SlipwayError(Exception):
    """The root of every expected error. Anything else that reaches the interceptor is a bug and is logged as one."""

    default_reason = "UNKNOWN"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidArgument(SlipwayError):
    """The request is wrong whatever the state of the world; `violations` holds every broken rule, not the first."""

    default_reason = "INVALID_REQUEST"

    def __init__(
        self,
        message: str = "",
        *,
        violations: Sequence[Violation] = (),
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        text = message or "; ".join(f"{v.field}: {v.description}" for v in violations)
        super().__init__(text, reason=reason, metadata=metadata)
        self.violations = tuple(violations)


class ResourceError(SlipwayError):
    """An error about one named resource (`container`, `image`, `network`, `node`)."""

    def __init__(
        self,
        message: str,
        *,
        resource_type: str = "",
        resource_name: str = "",
        owner: str = "",
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.resource_type = resource_type
        self.resource_name = resource_name
        self.owner = owner


class NotFound(ResourceError):
    default_reason = "NOT_FOUND"


class AlreadyExists(ResourceError):
    """The name is taken; `owner` is the id of the holder."""

    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(ResourceError):
    """The request is fine, the state of the resource forbids it."""

    default_reason = "WRONG_STATE"


class Aborted(SlipwayError):
    """A concurrent change won; reading again and repeating may succeed."""

    default_reason = "CONCURRENT_CHANGE"


class OutOfRange(SlipwayError):
    """A cursor points before what is still kept; the way out is a fresh snapshot."""

    default_reason = "CURSOR_GONE"


class Unauthenticated(SlipwayError):
    """Credentials are missing or wrong; with others it may work."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(SlipwayError):
    default_reason = "PERMISSION_DENIED"


class ResourceExhausted(SlipwayError):
    """Disk, addresses, descriptors or a configured cap ran out."""

    default_reason = "RESOURCE_EXHAUSTED"


class Unimplemented(SlipwayError):
    """This host or this build cannot do it."""

    default_reason = "UNIMPLEMENTED"


class Unavailable(SlipwayError):
    """A service or node does not answer; `retry_after` (seconds) says when asking again makes sense."""

    default_reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after


class DeadlineExceeded(SlipwayError):
    default_reason = "DEADLINE_EXCEEDED"


class DataLoss(SlipwayError):
    """Something that was kept is not as it was any more."""

    default_reason = "DATA_LOSS"


class Internal(SlipwayError):
    """We failed; the message is safe to show, the cause is in the log."""

    default_reason = "INTERNAL"


START_INTERRUPTED = "START_INTERRUPTED"  # why a start failed that the executor's own end cut short


class StartFailed(SlipwayError):
    """The container's process could not be started. `exit_code` is what the container's record shows:
    126 not executable, 127 not found, 128 anything else, as Docker maps them. `reason`: of a 128 that the container and
    its image are to be changed for; without one it is the node's."""

    default_reason = "START_FAILED"

    def __init__(
        self, message: str, *, exit_code: int, reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        named = {126: "COMMAND_NOT_EXECUTABLE", 127: "COMMAND_NOT_FOUND"}.get(exit_code, reason)
        super().__init__(message, reason=named, metadata={**(metadata or {}), "exit_code": str(exit_code)})
        self.exit_code = exit_code
