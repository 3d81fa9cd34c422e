"""The record of an exec: what is to run in a container, and what became of it.

Times are nanoseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass

from api_service.records.config import ConsoleSize


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """As it was asked for: empty means the container's own."""

    cmd: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    privileged: bool = False
    console_size: ConsoleSize | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRecord:
    """`started_at` is None before its one start, `finished_at` before its end. `exit_code` is None before that, and
    when nobody saw it; `error` then says why. `pid` is 0 unless it runs. `starter`: the replica of the API that started
    it; empty once that does not wait for the node's answer any more."""

    id: str
    container_id: str
    config: ExecConfig
    created_at: int
    started_at: int | None = None
    starter: str = ""
    finished_at: int | None = None
    pid: int = 0
    exit_code: int | None = None
    error: str = ""

    @property
    def running(self) -> bool:
        return self.started_at is not None and self.finished_at is None
