"""`python -m api_service`: the API service, until SIGTERM or SIGINT. `--help` lists the settings."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import structlog

from api_service.config import Settings
from api_service.privileges import account_for, capability_sets, drop_privileges, prepare_directories
from common.errors import SlipwayError
from common.logging import configure_logging
from common.settings import load_settings

_log = structlog.get_logger(__name__)

_EXIT_USAGE = 2


def main() -> int:
    # gRPC's handlers around fork(2) cost time at each, and this service forks for no more than credential helpers.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    try:
        settings = load_settings(Settings, sys.argv[1:])
        configure_logging(level=settings.log_level, format=settings.log_format)
        # Before the privileges go: the interpreter's own files may be readable for root alone.
        from api_service.service import run_service

        _become_unprivileged(settings)
        asyncio.run(run_service(settings))
    except SlipwayError as error:
        print(f"slipway api: {error.message}", file=sys.stderr)  # noqa: T201 - before or after the log
        return _EXIT_USAGE
    return 0


def _become_unprivileged(settings: Settings) -> None:
    account = None
    if os.geteuid() == 0:
        account = account_for(settings.user)
        sockets = [Path(a.removeprefix("unix://")) for a in settings.listen if a.startswith("unix://")]
        prepare_directories(settings.state_dir, sockets, account)
    drop_privileges(account)
    sets = {name: f"{value:016x}" for name, value in capability_sets().items()}
    _log.info("privileges dropped", uid=os.getuid(), gid=os.getgid(), **sets)


if __name__ == "__main__":
    sys.exit(main())
