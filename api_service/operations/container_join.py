"""The containers whose namespaces a new one will join, found by what the request calls them."""

from __future__ import annotations

import dataclasses

from api_service.operations.engine import Engine
from api_service.records.config import HostConfig
from api_service.records.container import ContainerRecord
from api_service.validation.host_facts import HostFacts
from api_service.validation.namespace_modes import SHAREABLE, join_mode, joined_container
from api_service.validation.network_mode import HOST, join_network_mode, joined_network
from api_service.validation.remapped_users import is_remapped
from common.errors import FailedPrecondition, InvalidArgument, Violation


async def resolve_joined(engine: Engine, host: HostConfig, facts: HostFacts, *, name: str) -> HostConfig:
    """With full ids in `ipc_mode`, `pid_mode` and `network_mode`: names may change. `name` is the new container's own,
    or empty. Raises NotFound, InvalidArgument for itself, FailedPrecondition for one that does not share."""
    ipc = await _find(engine, host.ipc_mode, field="host_config.ipc_mode", name=name)
    pid = await _find(engine, host.pid_mode, field="host_config.pid_mode", name=name)
    if ipc is not None:
        _check_shareable(ipc)
    for record in (ipc, pid):
        if record is not None:
            _check_users(record, host, facts)
    if ipc is not None and pid is not None and ipc.id != pid.id and is_remapped(host, facts):
        why = "with the node's remapped users a container can join the namespaces of one other container, not of two"
        broken = Violation(field="host_config.pid_mode", description=f"{why}; name {ipc.name!r} here too")
        raise InvalidArgument(violations=[broken])
    return dataclasses.replace(
        host,
        ipc_mode=host.ipc_mode if ipc is None else join_mode(ipc.id),
        pid_mode=host.pid_mode if pid is None else join_mode(pid.id),
        network_mode=await _resolve_network(engine, host, facts, name=name),
    )


async def _find(engine: Engine, mode: str, *, field: str, name: str) -> ContainerRecord | None:
    """None: the mode names no container."""
    other = joined_container(mode)
    if other is None:
        return None
    return await _other(engine, other, field=field, name=name)


def _check_users(record: ContainerRecord, host: HostConfig, facts: HostFacts) -> None:
    if is_remapped(record.host_config, facts) != is_remapped(host, facts):
        raise FailedPrecondition(
            f"container {record.name!r}: its namespaces cannot be joined, for its users are the node's own or remapped "
            f"as the new one's are not; create both with the same userns_mode, its own is "
            f"{record.host_config.userns_mode!r}",
            resource_type="container",
            resource_name=record.name,
            reason="OTHER_USERS",
        )


def _check_shareable(record: ContainerRecord) -> None:
    if record.host_config.ipc_mode != SHAREABLE:
        mode_there = record.host_config.ipc_mode
        raise FailedPrecondition(
            f"container {record.name!r}: its IPC namespace cannot be joined, for its own ipc_mode is {mode_there!r}; "
            f"create it with ipc_mode {SHAREABLE!r}",
            resource_type="container",
            resource_name=record.name,
            reason="IPC_NOT_SHAREABLE",
        )


async def _resolve_network(engine: Engine, host: HostConfig, facts: HostFacts, *, name: str) -> str:
    other = joined_network(host.network_mode)
    if other is None:
        return host.network_mode
    record = await _other(engine, other, field="host_config.network_mode", name=name)
    _check_users(record, host, facts)
    there = record.host_config.network_mode
    if there == HOST or joined_network(there) is not None:
        raise FailedPrecondition(
            f"container {record.name!r}: its network cannot be shared, for its own network mode is {there!r}; use that "
            "one",
            resource_type="container",
            resource_name=record.name,
            reason="NETWORK_NOT_SHAREABLE",
        )
    return join_network_mode(record.id)


async def _other(engine: Engine, reference: str, *, field: str, name: str) -> ContainerRecord:
    if name and reference.removeprefix("/") == name:
        why = "a container cannot join its own namespace; name another one"
        raise InvalidArgument(violations=[Violation(field=field, description=why)])
    return await engine.containers.find(reference)
