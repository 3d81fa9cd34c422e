"""What the executor itself demands of an exec, whoever asks. Pure. Fields as in `slipway.executor.v1.ExecSpec`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from common.errors import Violation
from executor_service.container import CONTAINER_ID, TerminalSize
from executor_service.operations.process_rules import process_rules
from executor_service.streams.exec_spec import ExecSpec

_CAPABILITY = re.compile(r"CAP_[A-Z_]{2,32}")
_MAX_SIDE = 65535  # struct winsize has 16 bits for it, ioctl_tty(2)


def exec_violations(spec: ExecSpec) -> list[Violation]:
    """Every broken rule."""
    return [Violation(field=f"exec.{field}", description=text) for field, text in _rules(spec)]


def size_violations(size: TerminalSize, *, field: str = "size") -> list[Violation]:
    return [
        Violation(field=f"{field}.{side}", description=f"{value} must be 0 to {_MAX_SIDE} characters")
        for side, value in (("height", size.height), ("width", size.width))
        if not 0 <= value <= _MAX_SIDE
    ]


def _rules(spec: ExecSpec) -> Iterator[tuple[str, str]]:
    for field, identifier in (("id", spec.id), ("container_id", spec.container_id)):
        if not CONTAINER_ID.fullmatch(identifier):
            yield field, f"{identifier!a} must be 64 lower-case hexadecimal characters"
    yield from process_rules(spec.args, spec.env, working_dir=spec.working_dir or "/", user=spec.user)
    for index, name in enumerate(spec.capabilities):
        if not _CAPABILITY.fullmatch(name):
            yield f"capabilities[{index}]", f"{name!a} must be the name of a capability, CAP_…"
    if spec.terminal_size is not None:
        for violation in size_violations(spec.terminal_size, field="terminal_size"):
            yield violation.field, violation.description
