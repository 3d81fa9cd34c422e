"""What a registry's refusals mean."""

from __future__ import annotations

from common.errors import NotFound, PermissionDenied, SlipwayError, Unauthenticated, Unavailable
from executor_service.registry.source import Endpoint


def refused(endpoint: Endpoint, status: int, what: str) -> SlipwayError:
    """The error for an HTTP `status` of 300 or more that will be no better the next time."""
    where = f"registry {endpoint.host}, repository {endpoint.repository}, {what}"
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


def unreachable(endpoint: Endpoint, why: str) -> Unavailable:
    return Unavailable(
        f"registry {endpoint.host}, repository {endpoint.repository}: {why}; look whether the node reaches it and "
        "repeat the request, it goes on where it stopped",
        retry_after=5.0,
        reason="REGISTRY_UNAVAILABLE",
    )
