"""What the executor itself demands of an exec, whoever asks. Pure. Fields as in `slipway.executor.v1.ExecSpec`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from common.errors import Violation
from executor_service.container import CONTAINER_ID, TerminalSize
from executor_service.exec_spec import ExecSpec
from executor_service.oci.spec import check_working_dir

_CAPABILITY = re.compile(r"CAP_[A-Z_]{2,32}")
_MAX_STRING = 128 * 1024  # bytes of one argument or variable: MAX_ARG_STRLEN, execve(2)
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
    if not spec.args or not spec.args[0]:
        yield "args", "must name the program to run"
    for name, texts in (("args", spec.args), ("env", spec.env)):
        for index, text in enumerate(texts):
            if "\0" in text:
                yield f"{name}[{index}]", "must not hold a NUL character"
            if len(text.encode(errors="surrogateescape")) >= _MAX_STRING:
                yield f"{name}[{index}]", f"must be shorter than {_MAX_STRING} bytes, the kernel's limit"
    for index, text in enumerate(spec.env):
        if not text.partition("=")[1] or text.startswith("="):
            yield f"env[{index}]", f"{text[:64]!a} must be KEY=value"
    for violation in check_working_dir(spec.working_dir or "/"):
        yield "working_dir", violation.description
    if any(not character.isprintable() for character in spec.user):
        yield "user", f"{spec.user!a} must be uid, uid:gid, name or name:group"
    for index, name in enumerate(spec.capabilities):
        if not _CAPABILITY.fullmatch(name):
            yield f"capabilities[{index}]", f"{name!a} must be the name of a capability, CAP_…"
    if spec.terminal_size is not None:
        for violation in size_violations(spec.terminal_size, field="terminal_size"):
            yield violation.field, violation.description
