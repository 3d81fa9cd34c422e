"""The containers whose namespaces a new one will join, found by what the request calls them."""

from __future__ import annotations

import dataclasses

from api_service.operations.engine import Engine
from api_service.records.config import HostConfig
from api_service.validation.namespace_modes import SHAREABLE, join_mode, joined_container
from common.errors import FailedPrecondition, InvalidArgument, Violation


async def resolve_joined(engine: Engine, host: HostConfig, *, name: str) -> HostConfig:
    """With full ids in `ipc_mode` and `pid_mode`: names may change. `name` is the new container's own, or empty. Raises
    NotFound, InvalidArgument for itself, FailedPrecondition for one that does not share."""
    return dataclasses.replace(
        host,
        ipc_mode=await _resolve(engine, host.ipc_mode, field="host_config.ipc_mode", name=name, shareable=True),
        pid_mode=await _resolve(engine, host.pid_mode, field="host_config.pid_mode", name=name, shareable=False),
    )


async def _resolve(engine: Engine, mode: str, *, field: str, name: str, shareable: bool) -> str:
    other = joined_container(mode)
    if other is None:
        return mode
    if name and other.removeprefix("/") == name:
        why = "a container cannot join its own namespace; name another one"
        raise InvalidArgument(violations=[Violation(field=field, description=why)])
    record = await engine.containers.find(other)
    if shareable and record.host_config.ipc_mode != SHAREABLE:
        mode_there = record.host_config.ipc_mode
        raise FailedPrecondition(
            f"container {record.name!r}: its IPC namespace cannot be joined, for its own ipc_mode is {mode_there!r}; "
            f"create it with ipc_mode {SHAREABLE!r}",
            resource_type="container",
            resource_name=record.name,
            reason="IPC_NOT_SHAREABLE",
        )
    return join_mode(record.id)
