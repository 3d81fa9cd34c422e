"""Check and record a program that is to run in a container; starts nothing."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from api_service.operations.container_state import require_running, wrong_state
from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord, Status
from api_service.records.event_shapes import container_event
from api_service.records.exec import ExecConfig, ExecRecord
from api_service.records.exec_repository import MAX_EXECS
from api_service.validation.detach_keys import validate_detach_keys
from api_service.validation.environment import validate_environment
from api_service.validation.process import validate_user, validate_words, validate_working_dir
from common.errors import InvalidArgument, ResourceExhausted, Violation


async def create_exec(engine: Engine, container: str, config: ExecConfig) -> ExecRecord:
    """Raises InvalidArgument with every violation, NotFound, FailedPrecondition unless the container runs."""
    if violations := validate_exec(config):
        raise InvalidArgument(violations=violations)
    record = await engine.containers.find(container)
    require_exec(record)
    if await engine.execs.count(record.id) >= MAX_EXECS:
        raise ResourceExhausted(
            f"container {record.name!r}: {MAX_EXECS} execs are kept already; they are forgotten five minutes after "
            "their end, and an hour after their creation when nobody starts them",
            reason="TOO_MANY_EXECS",
        )
    made = ExecRecord(id=secrets.token_hex(32), container_id=record.id, config=config, created_at=engine.clock())
    action = f"exec_create: {' '.join(config.cmd)}"[:256]
    await engine.execs.add(made, container_event(record, action, engine.clock(), execID=made.id))
    return made


def require_exec(record: ContainerRecord) -> None:
    """Raises FailedPrecondition unless programs can be run in it."""
    if record.status is Status.RESTARTING:
        raise wrong_state(record, "is restarting, wait until it runs", reason="CONTAINER_RESTARTING")
    require_running(record, "run a program in")
    if record.state.paused:
        raise wrong_state(record, "is paused, unpause it before exec", reason="CONTAINER_PAUSED")


def validate_exec(config: ExecConfig) -> list[Violation]:
    found: list[Violation] = []
    if not config.cmd or not config.cmd[0]:
        found.append(Violation(field="config.cmd", description="no command: name the program to run"))
    found += validate_words(config.cmd, "config.cmd")
    found += validate_environment(config.env, "config.env")
    found += _user(config)
    found += _working_dir(config.working_dir)
    found += validate_detach_keys(config.detach_keys, "config.detach_keys")
    if config.console_size is not None and not config.tty:
        found.append(Violation(field="config.console_size", description="needs `config.tty`: it is a terminal's"))
    return found


def _user(config: ExecConfig) -> Sequence[Violation]:
    return validate_user(config.user, "config.user") if config.user else ()


def _working_dir(path: str) -> Sequence[Violation]:
    if not path:
        return ()
    if not path.startswith("/"):
        return [Violation(field="config.working_dir", description=f"{path[:64]!r} is not absolute; begin it with '/'")]
    return validate_working_dir(path, "config.working_dir")
