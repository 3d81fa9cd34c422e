"""What a registry's refusals mean."""

from __future__ import annotations

import email.utils
import math
import re
import time

import httpx

from common.errors import NotFound, PermissionDenied, SlipwayError, Unauthenticated, Unavailable
from executor_service.registry.source import Endpoint

PASSING = frozenset({408, 429, 500, 502, 503, 504})  # HTTP statuses that may be another one the next time
_RETRY = 5.0  # seconds until a repetition makes sense, when the registry does not say
_MAX_RETRY = 7 * 24 * 3600.0  # seconds; what is said beyond that is taken for that
_SECONDS = re.compile(r"[0-9]{1,9}")


class BusyError(httpx.TransportError):
    """The registry answers that it cannot answer now. `retry_after`: the seconds for which it wants to be left alone;
    None when it does not say."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"HTTP status {response.status_code}")
        self.retry_after = retry_after(response.headers.get("Retry-After", ""))
        self.limits = response.status_code == httpx.codes.TOO_MANY_REQUESTS


class TooSlowError(httpx.TransportError):
    """It answers, but at a rate that gets nowhere."""


def retry_after(header: str) -> float | None:
    """Seconds from now, of a number or a date. Source: RFC 9110, section 10.2.3."""
    text = header.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _MAX_RETRY)
    try:
        moment = email.utils.parsedate_to_datetime(text[:64]).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, moment - time.time()), _MAX_RETRY)


def refused(endpoint: Endpoint, status: int, what: str) -> SlipwayError:
    """The error for an HTTP `status` of 300 or more that will be no better the next time."""
    where = f"{_place(endpoint)}, {what}"
    if status == 401:
        return Unauthenticated(
            f"{where}: the registry takes no one without a login, or not this one (HTTP 401); give other credentials "
            "for it, and look whether the name is right",
            reason="REGISTRY_LOGIN_REFUSED",
        )
    if status == 403:
        return PermissionDenied(
            f"{where}: access is denied (HTTP {status}); give credentials for it, and look whether the name is right",
            reason="REGISTRY_ACCESS_DENIED",
        )
    if status == 404:
        return NotFound(
            f"{where}: the registry does not have it; look whether name and tag are right",
            resource_type="image",
            resource_name=f"{endpoint.host}/{endpoint.repository}",
            reason="IMAGE_NOT_FOUND",
        )
    return unreachable(endpoint, f"{what}: HTTP status {status}")


def unreachable(endpoint: Endpoint, why: str, *, reason: str = "REGISTRY_UNAVAILABLE") -> Unavailable:
    return Unavailable(
        f"{_place(endpoint)}: {why}; look whether the node reaches it and repeat the request, it goes on where it "
        "stopped",
        retry_after=_RETRY,
        reason=reason,
    )


def downgraded(endpoint: Endpoint, why: str) -> PermissionDenied:
    """What was asked for over HTTPS is not taken without: anybody on the way could change a tag's manifest."""
    return PermissionDenied(
        f"{_place(endpoint)}: {why}, which is not followed; the registry must redirect to https, one that speaks HTTP "
        "alone belongs into the API's insecure_registries",
        reason="INSECURE_REDIRECT",
    )


def given_up(endpoint: Endpoint, failure: httpx.TransportError) -> Unavailable:
    """The error when there is no further attempt after `failure`."""
    if isinstance(failure, BusyError) and (failure.limits or failure.retry_after is not None):
        wait = math.ceil(_RETRY if failure.retry_after is None else failure.retry_after)
        return Unavailable(
            f"{_place(endpoint)}: it wants to be asked less ({failure}); repeat the request in {wait} s or later, it "
            "goes on where it stopped; with a login the registry may allow more",
            retry_after=float(wait),
            reason="REGISTRY_RATE_LIMITED" if failure.limits else "REGISTRY_UNAVAILABLE",
        )
    slow = isinstance(failure, TooSlowError | httpx.ReadTimeout | httpx.WriteTimeout)
    return unreachable(endpoint, told(failure), reason="REGISTRY_TOO_SLOW" if slow else "REGISTRY_UNAVAILABLE")


def told(failure: httpx.TransportError) -> str:
    """Those of the HTTP library may have no words but their kind."""
    return str(failure) if isinstance(failure, BusyError | TooSlowError) else repr(failure)


def _place(endpoint: Endpoint) -> str:
    return f"registry {endpoint.host}, repository {endpoint.repository}"
