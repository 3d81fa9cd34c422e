"""Environments: lists of `KEY=value`, where a bare `KEY` takes the variable away."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import Violation

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MAX_ENTRY = 128 * 1024  # bytes with the closing NUL: MAX_ARG_STRLEN, execve(2)


def key_of(entry: str) -> str:
    return entry.partition("=")[0]


def validate_environment(entries: Sequence[str], field: str) -> list[Violation]:
    """The kernel's bound; what an entry looks like is the protocol's rule. Values may be secrets: not shown."""
    return [
        Violation(
            field=f"{field}[{index}]",
            description=f"the variable {key_of(entry)[:64]!r} takes {size} bytes, the kernel allows {_MAX_ENTRY}; "
            "use a file",
        )
        for index, entry in enumerate(entries)
        if (size := len(entry.encode(errors="surrogatepass")) + 1) > _MAX_ENTRY
    ]


def merge_environment(request: Sequence[str], image: Sequence[str]) -> tuple[str, ...]:
    """The request's entries, then the image's whose key the request does not name."""
    named = {key_of(entry) for entry in request}
    return (*request, *(entry for entry in image if key_of(entry) not in named))


def process_environment(entries: Sequence[str], *, hostname: str, tty: bool) -> tuple[str, ...]:
    """What the process gets: Docker's own variables, replaced or removed by `entries`; one entry a key, the last wins.
    HOME is not in it: it is read from the container's passwd at start."""
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname} | ({"TERM": "xterm"} if tty else {})
    for entry in entries:
        key, equals, value = entry.partition("=")
        if equals:
            variables[key] = value
        else:
            variables.pop(key, None)
    return tuple(f"{key}={value}" for key, value in variables.items())
