"""The executor service: `python -m executor_service [check|reset] [--help]`.

Without a subcommand it serves, until SIGTERM or SIGINT; containers go on running. `check` says in a table what the host
has and lacks. `reset` removes every container and everything else of the instance.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import structlog

from common.errors import SlipwayError
from common.logging import configure_logging
from common.settings import load_settings
from common.version import VERSION
from executor_service.config import ResetSettings, Settings
from executor_service.executor import open_executor, serving
from executor_service.host_check import check_host, refuses, table, warnings
from executor_service.host_seams import open_seams
from executor_service.instance_lock import instance_lock
from executor_service.oci.host import probe_host
from executor_service.oci.mount_namespace import enter_runtime_mount_namespace
from executor_service.oci.runtimes import RuntimeCatalog
from executor_service.operations.node_inspect import NodeFacts
from executor_service.reset import INSIDE, reset, reset_inside
from executor_service.seams import Seams

_log = structlog.get_logger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)

OpenSeams = Callable[[], AbstractAsyncContextManager[Seams]]


def main(arguments: Sequence[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments[:1] and arguments[0][:1] != "-" else ("serve", arguments)
    commands = {"serve": _serve, "check": _check, "reset": _reset, INSIDE: _reset_inside}
    if command not in commands:
        print(f"unknown command {command!r}; there are: check, reset, and none at all to serve", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    try:
        return commands[command](rest)
    except SlipwayError as error:
        print(f"executor: {error.message}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1


def _check(arguments: Sequence[str]) -> int:
    load_settings(Settings, arguments)
    rows = check_host()
    print(table(rows))  # noqa: T201 - a command's output
    return 1 if refuses(rows) else 0


def _reset(arguments: Sequence[str]) -> int:
    settings = load_settings(ResetSettings, arguments)
    configure_logging(level=settings.log_level, format=settings.log_format)
    reset(settings, arguments)
    return 0


def _reset_inside(arguments: Sequence[str]) -> int:
    settings = load_settings(ResetSettings, arguments)
    configure_logging(level=settings.log_level, format=settings.log_format)
    reset_inside(settings)
    return 0


def _serve(arguments: Sequence[str]) -> int:
    return run(load_settings(Settings, arguments))


def run(settings: Settings, *, wrap: Callable[[Seams], Seams] = lambda seams: seams) -> int:
    """Serve until a signal. `wrap` may put something between the executor and its seams. Call it on the main thread,
    before there is any other: the kernel moves no threads that share a working directory (setns(2))."""
    configure_logging(level=settings.log_level, format=settings.log_format)
    rows = check_host()
    if refuses(rows):
        print(f"this host lacks what the executor needs:\n{table(rows)}", file=sys.stderr)  # noqa: T201 - for people
        return 1
    lacking = warnings(rows)
    _log.info("host checked", warnings=lacking)
    with instance_lock(settings.paths):
        catalog = RuntimeCatalog.probe(configured=settings.runtimes, default=settings.default_runtime)
        layout = probe_host().cgroup_layout
        enter_runtime_mount_namespace(settings.run_dir, catalog)
        host = probe_host()
        facts = NodeFacts(
            version=VERSION,
            cgroup_layout=layout.value,
            runtimes=[catalog.default, *sorted(set(catalog.runtimes) - {catalog.default})],
            warnings=lacking,
        )
        if sys.version_info < (3, 12):
            # The default one needs a thread for each child; from 3.12 on this is the default.
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
        asyncio.run(_run(settings, facts, partial(open_seams, settings, catalog=catalog, host=host), wrap))
    return 0


async def _run(settings: Settings, facts: NodeFacts, opened: OpenSeams, wrap: Callable[[Seams], Seams]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with (
        opened() as seams,
        open_executor(
            wrap(seams),
            paths=settings.paths,
            facts=facts,
            boot_id=_BOOT_ID.read_text().strip(),
            retention=settings.journal_retention,
            grace=settings.grace,
        ) as executor,
        serving(
            executor,
            socket=settings.paths.socket,
            socket_gid=settings.socket_gid,
            more=settings.listen,
            grace=settings.grace,
        ),
    ):
        await stop.wait()
        _log.info("stopping; containers go on running")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
