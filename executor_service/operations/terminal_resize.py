"""Change the size of a container's or an exec's terminal."""

from __future__ import annotations

from common.errors import FailedPrecondition, InvalidArgument
from executor_service.container import TerminalSize
from executor_service.node import Node
from executor_service.oci.terminal_control import set_terminal_size
from executor_service.operations.container_rules import id_violations
from executor_service.operations.exec_rules import size_violations


async def container_resize(node: Node, *, container_id: str, size: TerminalSize) -> None:
    """Raises NotFound, and FailedPrecondition when it does not run or has no terminal."""
    if broken := [*id_violations(container_id), *size_violations(size)]:
        raise InvalidArgument(violations=broken)
    record = node.records.get(container_id)
    if record.spec is not None and not record.spec.terminal:
        raise _cannot(container_id, "has no terminal; create it with `tty`", reason="NO_TERMINAL")
    if node.supervisor.watched(container_id) is None:
        raise _cannot(container_id, f"does not run; it is {record.phase}", reason="NOT_RUNNING")
    if not await set_terminal_size(node.paths.bundle(container_id), size):
        raise _cannot(container_id, "has just ended", reason="NOT_RUNNING")


async def exec_resize(node: Node, *, exec_id: str, size: TerminalSize) -> None:
    """Raises FailedPrecondition when it does not run or has no terminal."""
    if broken := [*id_violations(exec_id, field="exec_id"), *size_violations(size)]:
        raise InvalidArgument(violations=broken)
    node.execs.get(exec_id).running.resize(size)


def _cannot(container_id: str, why: str, *, reason: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"container {container_id!r} {why}", resource_type="container", resource_name=container_id, reason=reason
    )
