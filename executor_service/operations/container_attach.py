"""Attach to a container's standard streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from common.errors import FailedPrecondition, InvalidArgument, SlipwayError
from executor_service.node import Node
from executor_service.operations.container_rules import id_violations
from executor_service.streams.attach_client import AttachClient
from executor_service.streams.client_input import feed
from executor_service.streams.exec_spec import StreamInput, StreamOutput


async def container_attach(
    node: Node, *, container_id: str, stdin: bool, stdout: bool, stderr: bool, inputs: AsyncIterator[StreamInput]
) -> AsyncGenerator[StreamOutput | None]:
    """First None, when the attachment stands; then what the process writes, until it has ended. One that does not run
    is waited for. Raises NotFound, FailedPrecondition, ResourceExhausted."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    record = node.records.get(container_id)
    if record.spec is None or record.removing:
        raise FailedPrecondition(
            f"container {container_id!r}: {record.error or 'it is being removed'}",
            resource_type="container",
            resource_name=container_id,
        )
    runs = node.supervisor.watched(container_id) is not None
    bundle = node.paths.bundle(container_id) if runs else None
    asked = node.attachments.attached(
        record.spec, bundle, stdin=stdin and record.spec.open_stdin, stdout=stdout, stderr=stderr
    )
    async with asked as client:
        feeding = asyncio.create_task(_feed(client, inputs))
        try:
            yield None
            while (output := await client.read()) is not None:
                yield output
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})


async def _feed(client: AttachClient, inputs: AsyncIterator[StreamInput]) -> None:
    try:
        await feed(inputs, client)
    except SlipwayError as error:
        client.end(error)
