"""The root of a container as a descriptor, running or not, for the operations on its files.

A running container's is that of its process, with whatever is mounted in there; a stopped one's is its own file system,
mounted for as long as it is needed. A start, an end or a removal meanwhile goes on unhindered.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import FailedPrecondition, InvalidArgument, Violation
from executor_service.container import ContainerSpec
from executor_service.container_record import ContainerRecord, Phase
from executor_service.node import Node
from executor_service.oci.processes import read_process
from executor_service.oci.runtime import Process
from executor_service.operations.container_rules import id_violations
from executor_service.threads import finish
from executor_service.user_mapping import UserMapping, mapping_of

_MAX_PATH = 4096  # bytes, PATH_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRoot:
    """`descriptor` is O_PATH. `mapping`: how owners are seen through it, None as they are."""

    descriptor: int
    mapping: UserMapping | None


@asynccontextmanager
async def container_root(node: Node, record: ContainerRecord) -> AsyncIterator[ContainerRoot]:
    """Raises NotFound, and what a mount raises."""
    process = record.run.process.container if record.phase is Phase.RUNNING and record.run is not None else None
    async with layered_root(node, record) as (merged, mapping):
        descriptor = await finish(lambda: _open(merged, process))
        try:
            yield ContainerRoot(descriptor=descriptor, mapping=mapping)
        finally:
            os.close(descriptor)


@asynccontextmanager
async def layered_root(node: Node, record: ContainerRecord) -> AsyncIterator[tuple[Path, UserMapping | None]]:
    """Where the root is mounted, without what is mounted in it while it runs, and how owners are seen there. Raises
    NotFound, and what a mount raises."""
    mapping = None
    if record.spec is not None and record.spec.remapped:
        mapping = await finish(lambda: _mapping(node, record))
    # Visited also while it runs: were it to end and start again meanwhile, its layers would be mounted twice.
    async with node.seams.snapshots.visit(record.id, remapped=mapping is not None) as merged:
        yield merged, mapping


def usable(node: Node, container_id: str) -> tuple[ContainerRecord, ContainerSpec]:
    """Raises NotFound, and FailedPrecondition for one that is broken or being removed."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    record = node.records.get(container_id)
    if record.spec is None or record.removing:
        raise FailedPrecondition(
            f"container {container_id!r}: {record.error or 'it is being removed'}",
            resource_type="container",
            resource_name=container_id,
            reason="NO_FILES",
        )
    return record, record.spec


def refuse_below_mount(record: ContainerRecord, spec: ContainerSpec, path: str) -> None:
    """Raises FailedPrecondition for a path at which something is mounted only while the container runs: what the root
    holds there is not what its processes see."""
    if record.phase is Phase.RUNNING:
        return
    plain = posixpath.normpath("/" + path.lstrip("/"))
    for mount in spec.mounts:
        target = posixpath.normpath("/" + mount.target.lstrip("/"))
        if plain == target or plain.startswith(target.rstrip("/") + "/"):
            raise FailedPrecondition(
                f"container {record.id!r}: {path!r} is in the {mount.type.value} mounted at {target!r}, which is there "
                "only while it runs; start it, or copy through a container that runs and has it mounted",
                resource_type="container",
                resource_name=record.id,
                reason="MOUNTED_WHILE_RUNNING",
            )


def check_path(path: str) -> None:
    """Raises InvalidArgument."""
    why = ""
    if not path.startswith("/"):
        why = f"{path!r} must be absolute"
    elif "\0" in path:
        why = f"{path!r} must not contain a NUL byte"
    elif len(os.fsencode(path)) > _MAX_PATH:
        why = f"has {len(os.fsencode(path))} bytes; the limit is {_MAX_PATH}"
    if why:
        raise InvalidArgument(violations=[Violation(field="path", description=why)])


def _mapping(node: Node, record: ContainerRecord) -> UserMapping | None:
    """A running container's own, for the setting may have changed since its start."""
    if record.phase.has_process and record.run is not None:
        with suppress(FileNotFoundError, ProcessLookupError):
            return mapping_of(record.run.process.container.pid)
    return node.user_mapping


def _open(merged: Path, process: Process | None) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if process is not None:
        try:
            descriptor = os.open(f"/proc/{process.pid}/root", flags)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return os.open(merged, flags)  # it has just ended
        # Compared after opening: the number may be another process's by now.
        if read_process(process.pid) == process:
            return descriptor
        os.close(descriptor)
    return os.open(merged, flags)
