"""What every call brings along besides its request."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from api_service.deadline import DEFAULT_DEADLINE, Deadline

_UNBOUNDED = 10 * 365 * 24 * 3600.0  # gRPC reports no deadline as centuries

Context = grpc.aio.ServicerContext[Any, Any]


def client_deadline(context: Context) -> Deadline | None:
    """None when the client gave none."""
    remaining = context.time_remaining()
    if remaining is None or remaining > _UNBOUNDED:
        return None
    return Deadline.after(remaining)


def deadline_of(context: Context, *, default: float = DEFAULT_DEADLINE) -> Deadline:
    return client_deadline(context) or Deadline.after(default)


async def send_headers(context: Context) -> None:
    """Tell the client that what happens from now on counts, before there is anything to answer."""
    sending = asyncio.ensure_future(context.send_initial_metadata(()))
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        # gRPC takes headers that were interrupted for unsent ones, and then cannot send the status either.
        await asyncio.wait([sending])
        raise
