"""The executor service: `python -m executor_service [check|reset] [--help]`.

Without a subcommand it serves, until SIGTERM or SIGINT; containers go on running. `check` says in a table what the host
has and lacks. `reset` removes every container and everything else of the instance.

Each command imports what it needs and no more: a table of the host should not wait for gRPC.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common.errors import SlipwayError
from common.logging import configure_logging
from common.settings import load_settings
from executor_service.config import ResetSettings, Settings

RESET_INSIDE = "reset-inside"  # what `reset` runs in the executor's mount namespace


def main(arguments: Sequence[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments and arguments[0][:1] != "-" else ("serve", arguments)
    commands = {"serve": _serve, "check": _check, "reset": _reset, RESET_INSIDE: _reset_inside}
    if command not in commands:
        print(f"unknown command {command!r}; there are: check, reset, and none at all to serve", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    try:
        return commands[command](rest)
    except SlipwayError as error:
        print(f"executor: {error.message}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1


def _serve(arguments: Sequence[str]) -> int:
    from executor_service.service import run

    return run(load_settings(Settings, arguments))


def _check(arguments: Sequence[str]) -> int:
    from executor_service.host_check import check_host, refuses, table

    load_settings(Settings, arguments)
    rows = check_host()
    print(table(rows))  # noqa: T201 - a command's output
    return 1 if refuses(rows) else 0


def _reset(arguments: Sequence[str]) -> int:
    from executor_service.reset import reset

    settings = _reset_settings(arguments)
    reset(settings, inside=[sys.executable, "-m", "executor_service", RESET_INSIDE, *arguments])
    return 0


def _reset_inside(arguments: Sequence[str]) -> int:
    from executor_service.reset_inside import reset_inside

    reset_inside(_reset_settings(arguments))
    return 0


def _reset_settings(arguments: Sequence[str]) -> ResetSettings:
    settings = load_settings(ResetSettings, arguments)
    configure_logging(level=settings.log_level, format=settings.log_format)
    return settings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
