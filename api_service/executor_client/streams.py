"""Programs run in a container, and what is said to them and to its own process."""

from __future__ import annotations

from dataclasses import dataclass

from api_service.executor_client.journal import JournalEntry
from api_service.executor_client.logs import LogStream
from api_service.records.config import ConsoleSize


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """A program as an executor is asked to run it. `env` is whole but for HOME."""

    id: str
    container_id: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    user: str
    group_add: tuple[str, ...]
    capabilities: tuple[str, ...]
    no_new_privileges: bool
    terminal: bool
    terminal_size: ConsoleSize | None
    stdin: bool
    stdout: bool
    stderr: bool
    detach: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachTarget:
    container_id: str
    stdin: bool
    stdout: bool
    stderr: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInput:
    """Bytes, the end of them, the terminal's new size, or that the client leaves and an exec goes on."""

    data: bytes = b""
    end: bool = False
    resize: ConsoleSize | None = None
    detach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOutput:
    stream: LogStream
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRuns:
    pid: int


ExecAnswer = ExecRuns | StreamOutput | JournalEntry
