"""The one table between the error tree and gRPC: an error becomes a status with `google.rpc` details, and a status
that came over the wire becomes the same class again. Source: https://google.aip.dev/193
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from common.errors import (
    START_INTERRUPTED,
    Aborted,
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceError,
    ResourceExhausted,
    SlipwayError,
    StartFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)

ERROR_DOMAIN = "slipway"

# A client takes 8 KiB of metadata by default (GRPC_ARG_MAX_METADATA_SIZE): message, and details in base64.
_MESSAGE_BYTES = 800
_NAME_BYTES = 256
_DESCRIPTION_BYTES = 512
_VIOLATIONS_BYTES = 2048

_CODES: tuple[tuple[type[SlipwayError], grpc.StatusCode], ...] = (
    (InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
    (Aborted, grpc.StatusCode.ABORTED),
    (OutOfRange, grpc.StatusCode.OUT_OF_RANGE),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unimplemented, grpc.StatusCode.UNIMPLEMENTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (DataLoss, grpc.StatusCode.DATA_LOSS),
    (Internal, grpc.StatusCode.INTERNAL),
)
_CLASSES: dict[grpc.StatusCode, type[SlipwayError]] = {code: kind for kind, code in _CODES}
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# A command that is not in the image is the request's fault; so is what has a reason of its own, with what the image is.
# Any other failed start is ours; one that was cut short may be asked for again.
_CALLERS_FAULT = frozenset({126, 127})


def code_of(error: SlipwayError) -> grpc.StatusCode:
    """The canonical code of an error's class."""
    if isinstance(error, StartFailed):
        if error.exit_code in _CALLERS_FAULT:
            return grpc.StatusCode.INVALID_ARGUMENT
        if error.reason == START_INTERRUPTED:
            return grpc.StatusCode.UNAVAILABLE
        ours = error.reason == StartFailed.default_reason
        return grpc.StatusCode.INTERNAL if ours else grpc.StatusCode.FAILED_PRECONDITION
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def status_of(error: SlipwayError) -> Status:
    """The status to send: code, message, ErrorInfo, and BadRequest, ResourceInfo or RetryInfo where they apply.

    All of it fits into what every gRPC client takes: violations beyond that are counted, not listed."""
    status = Status(code=code_of(error).value[0], message=_bounded(error.message, _MESSAGE_BYTES))
    for detail in _details(error):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _details(error: SlipwayError) -> list[Message]:
    metadata = {key: _bounded(value, _NAME_BYTES) for key, value in error.metadata.items()}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=metadata)]
    if isinstance(error, InvalidArgument) and error.violations:
        details.append(_bad_request(error.violations))
    if isinstance(error, ResourceError) and error.resource_type:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.resource_type,
                resource_name=_bounded(error.resource_name, _NAME_BYTES),
                owner=error.owner,
            )
        )
    if isinstance(error, Unavailable) and error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        bad_request.field_violations.add(
            field=_bounded(violation.field, _NAME_BYTES),
            description=_bounded(violation.description, _DESCRIPTION_BYTES),
        )
        if bad_request.ByteSize() > _VIOLATIONS_BYTES and (more := len(violations) - number - 1):
            bad_request.field_violations.add(description=f"and {more} more; correct these first")
            break
    return bad_request


def _bounded(text: str, limit: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"


def error_from(call: grpc.RpcError) -> SlipwayError:
    """The error a failed call stands for; Unavailable when the peer never answered."""
    status = rpc_status.from_call(call)  # type: ignore[arg-type]  # AioRpcError has the trailing metadata it asks for
    if status is None:
        code = call.code() if isinstance(call, grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
        text = (call.details() if isinstance(call, grpc.aio.AioRpcError) else None) or str(code)
        return _CLASSES.get(code, Internal)(text)
    return _rebuild(status)


def _rebuild(status: Status) -> SlipwayError:
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    resource, retry = error_details_pb2.ResourceInfo(), error_details_pb2.RetryInfo()
    for packed in status.details:
        for detail in (info, bad_request, resource, retry):
            if packed.Is(detail.DESCRIPTOR):
                packed.Unpack(detail)
    reason, metadata, message = info.reason or None, dict(info.metadata), status.message
    kind = _CLASSES.get(_BY_NUMBER.get(status.code, grpc.StatusCode.INTERNAL), Internal)
    if kind is InvalidArgument:
        violations = [Violation(field=v.field, description=v.description) for v in bad_request.field_violations]
        return InvalidArgument(message, violations=violations, reason=reason, metadata=metadata)
    if issubclass(kind, ResourceError):
        return kind(
            message,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
            owner=resource.owner,
            reason=reason,
            metadata=metadata,
        )
    if kind is Unavailable:
        seconds = retry.retry_delay.ToTimedelta().total_seconds() or None
        return Unavailable(message, retry_after=seconds, reason=reason, metadata=metadata)
    return kind(message, reason=reason, metadata=metadata)
