"""What the executor is asked to run in a container, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from executor_service.container import TerminalSize
from executor_service.logs.record import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """As the API resolved it. `env` is whole but for HOME; `detach`: without any stream."""

    id: str
    container_id: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    group_add: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    terminal: bool = False
    terminal_size: TerminalSize | None = None
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInput:
    """From a client: bytes, the end of them, its terminal's new size, or (of an exec) that it detaches."""

    data: bytes = b""
    end: bool = False
    resize: TerminalSize | None = None
    detach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOutput:
    stream: Stream
    data: bytes
