"""What the executor demands of a program to be run, a container's own or an exec's: a part of `container_rules` and
`exec_rules`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from executor_service.oci.spec import check_working_dir

_MAX_STRING = 128 * 1024  # bytes of one argument or variable: MAX_ARG_STRLEN, execve(2)


def process_rules(args: Sequence[str], env: Sequence[str], *, working_dir: str, user: str) -> Iterator[tuple[str, str]]:
    """Field and broken rule."""
    if not args or not args[0]:
        yield "args", "must name the program to run"
    for name, texts in (("args", args), ("env", env)):
        for index, text in enumerate(texts):
            if "\0" in text:
                yield f"{name}[{index}]", "must not hold a NUL character"
            if len(text.encode(errors="surrogateescape")) >= _MAX_STRING:
                yield f"{name}[{index}]", f"must be shorter than {_MAX_STRING} bytes, the kernel's limit"
    for index, text in enumerate(env):
        if not text.partition("=")[1] or text.startswith("="):
            yield f"env[{index}]", f"{text[:64]!a} must be KEY=value"
    for violation in check_working_dir(working_dir):
        yield "working_dir", violation.description
    if any(not character.isprintable() for character in user):
        yield "user", f"{user!a} must be uid, uid:gid, name or name:group"
