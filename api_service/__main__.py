"""`python -m api_service`: the API service, until SIGTERM or SIGINT. `--help` lists the settings."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from api_service.config import Settings, load_settings
from api_service.privileges import account_for, capability_sets, drop_privileges, prepare_directories
from common.errors import SlipwayError
from common.logging import configure_logging

_log = structlog.get_logger(__name__)

_EXIT_USAGE = 2


def main() -> int:
    # gRPC's handlers around fork(2) cost time at each, and this service never forks.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    try:
        settings = load_settings(sys.argv[1:])
        configure_logging(level=settings.log_level, format=settings.log_format)
        _become_unprivileged(settings)
        asyncio.run(_run(settings))
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


async def _run(settings: Settings) -> None:
    # gRPC starts threads when it is imported: only now, without privileges.
    from api_service.composition import Plan, open_engine
    from api_service.server import request_rules, serve
    from api_service.store.sqlite_store import SqliteStore

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    rules = request_rules()
    plan = Plan(node=settings.node, executor=settings.executor, grace=settings.grace, max_events=settings.max_events)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore(settings.state_dir / "api.db"))
        engine = await stack.enter_async_context(open_engine(store, plan, rules))
        await stack.enter_async_context(
            serve(engine, rules, settings.listen, grace=settings.grace, max_calls=settings.max_calls)
        )
        _log.info("serving", addresses=settings.listen, node=settings.node, executor=settings.executor)
        await stop.wait()
        _log.info("stopping", grace=settings.grace)


if __name__ == "__main__":
    sys.exit(main())
