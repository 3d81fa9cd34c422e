"""The containers whose namespaces another one joins when it starts: they must run, and stay the same until it did."""

from __future__ import annotations

from common.errors import FailedPrecondition
from executor_service.container import ContainerSpec, NamespaceMode
from executor_service.container_record import ContainerRecord, Phase
from executor_service.node import Node
from executor_service.oci.namespaces import NOTHING_JOINED, Joined
from executor_service.oci.processes import read_process
from executor_service.oci.runtime import Process
from executor_service.threads import finish
from executor_service.user_mapping import mapping_of
from executor_service.user_namespaces import Owner


async def join_namespaces(node: Node, spec: ContainerSpec) -> Joined:
    """Raises FailedPrecondition when one of them does not run, or does not share."""
    if spec.network_container:
        _check_users(spec, "network", spec.network_container, node.records.find(spec.network_container))
    wanted = spec.namespaces
    if NamespaceMode.CONTAINER not in (wanted.ipc, wanted.pid):
        return NOTHING_JOINED
    ipc = pid = None
    if wanted.ipc is NamespaceMode.CONTAINER:
        ipc = _running(node, spec, "IPC", wanted.ipc_container)
    if wanted.pid is NamespaceMode.CONTAINER:
        pid = _running(node, spec, "process", wanted.pid_container)
    return Joined(ipc=ipc, pid=pid)


def sandbox_owner(node: Node, spec: ContainerSpec, joined: Joined) -> Owner | None:
    """The user namespace of the container: a new one, or that of the containers it joins; None for the node's own.
    Raises FailedPrecondition when the node remaps no users any more, or remapped them to others before."""
    if not spec.remapped:
        return None
    if node.user_mapping is None:
        why = "it was created with remapped users, and the executor's userns_remap is off now; set it again"
        raise _refused(spec, f"{why}, or create the container anew", reason="NOT_REMAPPED")
    for process in joined.processes:
        if mapping_of(process.pid) != node.user_mapping:
            why = "the container whose namespace it joins was started with other remapped users; restart that one"
            raise _refused(spec, why)
    return Owner(mapping=node.user_mapping, beside=next((process.pid for process in joined.processes), None))


async def check_joined(spec: ContainerSpec, joined: Joined) -> None:
    """After the namespaces were entered by the number of a process: it was the right one if it still is. Raises
    FailedPrecondition."""
    for process in joined.processes:
        if await finish(lambda process=process: read_process(process.pid)) != process:  # type: ignore[misc]
            raise _refused(spec, "the container whose namespace it joins ended meanwhile; start that one first")


def _running(node: Node, spec: ContainerSpec, kind: str, container_id: str) -> Process:
    record = node.records.find(container_id)
    if record is None or record.spec is None or record.removing:
        raise _refused(spec, f"cannot join the {kind} namespace of container {container_id!r}: it is not on this node")
    if record.phase is not Phase.RUNNING or record.run is None:
        why = f"cannot join the {kind} namespace of container {container_id!r}: it does not run; start it first"
        raise _refused(spec, why)
    _check_users(spec, kind, container_id, record)
    if kind == "IPC" and record.spec.namespaces.ipc is not NamespaceMode.SHAREABLE:
        why = f"cannot join the IPC namespace of container {container_id!r}: its own IPC mode is not 'shareable'"
        raise _refused(spec, why)
    return record.run.process.container


def _check_users(spec: ContainerSpec, kind: str, container_id: str, record: ContainerRecord | None) -> None:
    if record is not None and record.spec is not None and record.spec.remapped != spec.remapped:
        why = f"cannot join the {kind} namespace of container {container_id!r}: one of the two has remapped users and "
        raise _refused(spec, f"{why}the other has not; create both with the same userns_mode")


def _refused(spec: ContainerSpec, why: str, *, reason: str = "CANNOT_JOIN_NAMESPACE") -> FailedPrecondition:
    return FailedPrecondition(
        f"container {spec.id!r}: {why}",
        resource_type="container",
        resource_name=spec.id,
        reason=reason,
    )
