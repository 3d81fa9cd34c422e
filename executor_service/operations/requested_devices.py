"""The container as its CDI devices make it. They are looked up at every start: a driver that was updated has changed
their files."""

from __future__ import annotations

from common.errors import InvalidArgument, Violation
from executor_service.cdi.edits import REQUESTS
from executor_service.container import ContainerSpec
from executor_service.node import Node
from executor_service.operations.container_rules import violations


async def with_requested_devices(node: Node, spec: ContainerSpec) -> ContainerSpec:
    """One that asks for none stays as it is. Raises InvalidArgument."""
    if not spec.cdi_devices:
        return spec
    edited = await node.seams.bundles.with_cdi_devices(spec)
    if broken := violations(edited):
        names = ", ".join(spec.cdi_devices)
        raise InvalidArgument(
            violations=[
                Violation(field=REQUESTS, description=f"with {names}: {each.field} {each.description}")
                for each in broken
            ]
        )
    return edited
