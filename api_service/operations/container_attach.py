"""Connect a client to a container's own streams, whether it runs already or is still to be started."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from api_service.executor_client.streams import AttachTarget, StreamOutput
from api_service.operations.container_state import refuse_when_going, wrong_state
from api_service.operations.engine import Engine
from api_service.operations.stream_input import ClientInput, Typed, until
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import container_event
from api_service.validation.detach_keys import (
    DEFAULT_DETACH_KEYS,
    KeyScanner,
    parse_detach_keys,
    validate_detach_keys,
)
from common.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """None: as `config.attach_*` says, and everything when it says nothing."""

    container: str
    stdin: bool | None = None
    stdout: bool | None = None
    stderr: bool | None = None
    detach_keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    id: str
    tty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachEnded:
    detached: bool


async def attach_container(
    engine: Engine, attach: Attach, typed: AsyncIterator[Typed]
) -> AsyncGenerator[Attached | StreamOutput | AttachEnded]:
    """The attachment, what the process writes, the end. Raises NotFound, FailedPrecondition for a container that is
    paused or going, InvalidArgument for keys that are none, ResourceExhausted for a client that reads too slowly."""
    if broken := validate_detach_keys(attach.detach_keys, "attach.detach_keys"):
        raise InvalidArgument(violations=broken)
    record = await engine.containers.find(attach.container)
    refuse_when_going(record, "attach to")
    if record.state.paused:
        raise wrong_state(record, "is paused, unpause it before attach", reason="CONTAINER_PAUSED")
    executor = engine.nodes.get(record.node).executor

    keys = parse_detach_keys(attach.detach_keys or DEFAULT_DETACH_KEYS) or b""
    client = ClientInput(typed=typed, scanner=KeyScanner(keys) if record.config.tty else None)
    answers = executor.containers.attach(_target(record, attach), client.to_process())
    async with client.telling(), aclosing(answers), aclosing(until(answers, client.detached, client.broken)) as wanted:
        async for answer in wanted:
            if answer is None:
                await engine.events.add(container_event(record, "attach", engine.clock()))
                yield Attached(id=record.id, tty=record.config.tty)
            else:
                yield answer
    client.refuse()
    detached = client.detached.is_set()
    if detached:
        await engine.events.add(container_event(record, "detach", engine.clock()))
    yield AttachEnded(detached=detached)


def _target(record: ContainerRecord, attach: Attach) -> AttachTarget:
    config = record.config
    default = (config.attach_stdin, config.attach_stdout, config.attach_stderr)
    if not any(default):
        default = (config.open_stdin, True, True)
    stdin, stdout, stderr = (
        own if asked is None else asked
        for asked, own in zip((attach.stdin, attach.stdout, attach.stderr), default, strict=True)
    )
    return AttachTarget(
        container_id=record.id,
        stdin=stdin and config.open_stdin,
        stdout=stdout or (config.tty and stderr),
        stderr=stderr,
    )
