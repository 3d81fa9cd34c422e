"""Run a program in a container, with a client at its streams.

Output is read as the client takes it: a slow one slows the program down, as Docker's does, and costs no memory. A
client that goes away ends the program, unless it detached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from common.errors import FailedPrecondition, InvalidArgument
from executor_service.exec_spec import ExecSpec, StreamInput, StreamOutput
from executor_service.execs import Program
from executor_service.journal import JournalEntry
from executor_service.logs.record import Stream
from executor_service.node import Node
from executor_service.oci.exec_process import ExecProcessSpec
from executor_service.oci.exec_runtime import ExecStreams
from executor_service.operations.exec_rules import exec_violations
from executor_service.operations.exec_target import exec_target
from executor_service.records import Phase

_Detached = asyncio.Future[tuple[Stream, bytes] | None]


async def exec_run(
    node: Node, spec: ExecSpec, inputs: AsyncIterator[StreamInput]
) -> AsyncGenerator[int | StreamOutput | JournalEntry]:
    """Its pid, its output, its `exec_exited` entry; only the pid when it is detached from the beginning, no entry when
    it is detached later or its container was removed. Raises StartFailed, NotFound, FailedPrecondition, InvalidArgument
    before the pid."""
    if broken := exec_violations(spec):
        raise InvalidArgument(violations=broken)
    program = await _start(node, spec)
    detached: _Detached = asyncio.get_running_loop().create_future()
    feeding = asyncio.create_task(_feed(program, inputs, detached)) if not spec.detach else None
    try:
        yield program.running.process.pid
        if feeding is None:
            return
        while (output := await _next(program, detached)) is not None:
            yield output
        if detached.done():
            node.execs.detach(program)
            return
        if (entry := await asyncio.shield(program.ended)) is not None:
            yield entry
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait({feeding})
            if not program.left:
                node.execs.abandon(program)


async def _start(node: Node, spec: ExecSpec) -> Program:
    record = node.records.get(spec.container_id)
    watch = node.supervisor.watched(spec.container_id)
    if watch is None or record.spec is None or record.phase is not Phase.RUNNING or record.removing:
        raise FailedPrecondition(
            f"container {spec.container_id!r} does not run; it is {record.phase}",
            resource_type="container",
            resource_name=spec.container_id,
            reason="NOT_RUNNING",
        )
    own = record.spec
    process = ExecProcessSpec(
        args=spec.args,
        env=spec.env,
        working_dir=spec.working_dir or "/",
        user=spec.user,
        group_add=spec.group_add,
        capabilities=spec.capabilities,
        no_new_privileges=spec.no_new_privileges,
        apparmor_profile=own.security.apparmor_profile,
        rlimits=own.rlimits,
        oom_score_adj=own.oom_score_adj,
        terminal=spec.terminal,
        terminal_size=spec.terminal_size,
    )
    streams = ExecStreams() if spec.detach else ExecStreams(stdin=spec.stdin, stdout=spec.stdout, stderr=spec.stderr)
    return await node.execs.start(
        exec_target(node.paths, own, watch.run), spec.id, process, streams, detach=spec.detach
    )


async def _next(program: Program, detached: _Detached) -> StreamOutput | None:
    """None at the end, and when the client has detached."""
    reading = asyncio.ensure_future(program.running.read())
    try:
        await asyncio.wait({reading, detached}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done() or (chunk := reading.result()) is None:
            return None
        return StreamOutput(stream=chunk[0], data=chunk[1])
    finally:
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})


async def _feed(program: Program, inputs: AsyncIterator[StreamInput], detached: _Detached) -> None:
    async for message in inputs:
        if message.data:
            await program.running.write(message.data)
        if message.end:
            await program.running.end_input()
        if message.detach:
            detached.set_result(None)
            return
