"""Every error class crosses the wire and comes back as itself."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from common import errors
from common.errors import SlipwayError, Violation
from common.rpc_status import code_of, error_from, status_of


def over_the_wire(error: SlipwayError) -> SlipwayError:
    status = status_of(error)
    trailing = rpc_status.to_status(status).trailing_metadata
    return error_from(
        grpc.aio.AioRpcError(
            code=code_of(error),
            initial_metadata=grpc.aio.Metadata(),
            trailing_metadata=grpc.aio.Metadata(*trailing),
            details=status.message,
        )
    )


def detail(status: Status, kind: type) -> object:
    found = kind()
    assert any(packed.Is(found.DESCRIPTOR) and packed.Unpack(found) for packed in status.details)
    return found


RESOURCE: dict[str, Any] = {"resource_type": "container", "resource_name": "web", "owner": "abc"}


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("No such container: web", **RESOURCE),
        errors.AlreadyExists("name taken", **RESOURCE),
        errors.FailedPrecondition("it runs", **RESOURCE),
        errors.Aborted("changed"),
        errors.OutOfRange("gone"),
        errors.PermissionDenied("no"),
        errors.ResourceExhausted("disk full"),
        errors.Unimplemented("not on this host"),
        errors.DeadlineExceeded("too slow"),
        errors.Internal("our fault"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_class_message_reason_and_metadata(error: SlipwayError) -> None:
    error.metadata["key"] = "value"

    received = over_the_wire(error)

    assert type(received) is type(error)
    assert (received.message, received.reason, received.metadata) == (error.message, error.reason, {"key": "value"})
    if isinstance(error, errors.ResourceError):
        assert isinstance(received, errors.ResourceError)
        assert (received.resource_type, received.resource_name, received.owner) == (
            error.resource_type,
            error.resource_name,
            error.owner,
        )


def test_every_violation_crosses() -> None:
    violations = (Violation(field="config.env[2]", description="empty"), Violation(field="name", description="short"))

    received = over_the_wire(errors.InvalidArgument(violations=violations))

    assert isinstance(received, errors.InvalidArgument)
    assert received.violations == violations
    assert received.message == "config.env[2]: empty; name: short"


def test_unavailable_carries_when_to_retry() -> None:
    status = status_of(errors.Unavailable("executor down", retry_after=1.5))

    retry = detail(status, error_details_pb2.RetryInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500
    received = over_the_wire(errors.Unavailable("executor down", retry_after=1.5))
    assert isinstance(received, errors.Unavailable)
    assert received.retry_after == 1.5


@pytest.mark.parametrize(
    ("exit_code", "reason", "code"),
    [
        (126, "", grpc.StatusCode.INVALID_ARGUMENT),
        (127, "", grpc.StatusCode.INVALID_ARGUMENT),
        (128, "", grpc.StatusCode.INTERNAL),
        (128, "UNSAFE_ROOT", grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_a_missing_command_is_the_callers_fault_and_what_has_no_reason_ours(
    exit_code: int, reason: str, code: grpc.StatusCode
) -> None:
    error = errors.StartFailed("no such program", exit_code=exit_code, reason=reason)

    assert code_of(error) is code
    info = detail(status_of(error), error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.metadata["exit_code"] == str(exit_code)


def test_a_peer_that_never_answered_is_unavailable() -> None:
    call = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="connection refused"
    )

    received = error_from(call)

    assert isinstance(received, errors.Unavailable)
    assert received.message == "connection refused"


def test_a_status_of_any_error_fits_into_a_clients_metadata() -> None:
    violations = [Violation(field=f"config.env[{n}]" * 50, description="é" * 3000) for n in range(500)]
    error = errors.InvalidArgument(violations=violations, metadata={"key": "value" * 1000})

    status = status_of(error)

    trailing = sum(len(key) + len(value) for key, value in rpc_status.to_status(status).trailing_metadata)
    assert trailing * 4 / 3 + len(status.message.encode()) * 3 < 8192
    bad_request = detail(status, error_details_pb2.BadRequest)
    assert isinstance(bad_request, error_details_pb2.BadRequest)
    listed = len(bad_request.field_violations) - 1
    assert bad_request.field_violations[-1].description.startswith(f"and {500 - listed} more")
