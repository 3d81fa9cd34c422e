"""The API service: `python -m api_service [migrate] [--help]`.

Without a subcommand it serves, until SIGTERM or SIGINT. `migrate` copies all records from one store to another.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from api_service.config import MigrateSettings, Settings
from api_service.privileges import account_for, capability_sets, drop_privileges, prepare_directories
from common.errors import SlipwayError
from common.logging import configure_logging
from common.settings import load_settings

_log = structlog.get_logger(__name__)

_EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments and arguments[0][:1] != "-" else ("serve", arguments)
    commands = {"serve": _serve, "migrate": _migrate}
    if command not in commands:
        print(f"unknown command {command!r}; there are: migrate, and none at all to serve", file=sys.stderr)  # noqa: T201 - a command's output
        return _EXIT_USAGE
    # gRPC's handlers around fork(2) cost time at each, and this service forks for no more than credential helpers.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    try:
        commands[command](rest)
    except SlipwayError as error:
        print(f"slipway api: {error.message}", file=sys.stderr)  # noqa: T201 - before or after the log
        return _EXIT_USAGE
    return 0


def _serve(arguments: Sequence[str]) -> None:
    settings = load_settings(Settings, arguments)
    configure_logging(level=settings.log_level, format=settings.log_format)
    # Before the privileges go: the interpreter's own files may be readable for root alone.
    from api_service.service import run_service

    _become_unprivileged(settings, listens=True)
    asyncio.run(run_service(settings))


def _migrate(arguments: Sequence[str]) -> None:
    settings = load_settings(MigrateSettings, arguments)
    configure_logging(level=settings.log_level, format=settings.log_format)
    from api_service.migrate import migrate

    _become_unprivileged(settings, listens=False)  # the service has to be able to use what is made
    asyncio.run(migrate(settings))


def _become_unprivileged(settings: Settings, *, listens: bool) -> None:
    account = None
    if os.geteuid() == 0:
        account = account_for(settings.user)
        sockets = [Path(a.removeprefix("unix://")) for a in settings.listen if a.startswith("unix://")]
        prepare_directories(settings.state_dir, sockets if listens else [], account)
    drop_privileges(account)
    sets = {name: f"{value:016x}" for name, value in capability_sets().items()}
    _log.info("privileges dropped", uid=os.getuid(), gid=os.getgid(), **sets)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
