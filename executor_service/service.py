"""The executor as a process: the host checked, its directory owned, seams opened, the server up, until a signal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import structlog

from common.logging import configure_logging
from common.tls import TlsSource
from common.version import VERSION
from executor_service.allocator import keep_little
from executor_service.config import Settings
from executor_service.executor import open_executor
from executor_service.host_check import check_host, refuses, table, warnings
from executor_service.host_seams import open_seams
from executor_service.instance_lock import instance_lock
from executor_service.oci.capabilities import in_order
from executor_service.oci.host import probe_host
from executor_service.oci.mount_namespace import enter_runtime_mount_namespace
from executor_service.oci.runtimes import RuntimeCatalog
from executor_service.oci.sealed_runtimes import seal_runtimes
from executor_service.operations.node_inspect import NodeFacts
from executor_service.own_cgroup import enter_own_cgroup
from executor_service.seams import Seams
from executor_service.server import serving
from executor_service.storage.host_namespace import node_mounts
from executor_service.user_mapping import configured_mapping

_log = structlog.get_logger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)

OpenSeams = Callable[[], AbstractAsyncContextManager[Seams]]


def run(settings: Settings, *, wrap: Callable[[Seams], Seams] = lambda seams: seams) -> int:
    """Serve until a signal. `wrap` may put something between the executor and its seams. Call it on the main thread,
    before there is any other: the kernel moves no threads that share a working directory (setns(2))."""
    keep_little()
    configure_logging(level=settings.log_level, format=settings.log_format)
    mapping = configured_mapping(settings.userns_remap)
    rows = check_host()
    if refuses(rows):
        print(f"this host lacks what the executor needs:\n{table(rows)}", file=sys.stderr)  # noqa: T201 - for people
        return 1
    lacking = warnings(rows)
    _log.info("host checked", warnings=lacking)
    with instance_lock(settings.paths):
        if settings.own_cgroup:
            enter_own_cgroup(settings.own_cgroup)
        catalog = RuntimeCatalog.probe(configured=settings.runtimes, default=settings.default_runtime)
        layout = probe_host().cgroup_layout
        host_mounts = node_mounts()
        enter_runtime_mount_namespace(settings.run_dir, catalog)
        catalog = seal_runtimes(catalog, settings.paths.programs)
        host = probe_host()
        facts = NodeFacts(
            version=VERSION,
            cgroup_layout=layout.value,
            runtimes=[catalog.default, *sorted(set(catalog.runtimes) - {catalog.default})],
            warnings=lacking,
            cgroups=host.cgroups,
            capabilities=in_order(host.capabilities),
            seccomp=host.seccomp,
            apparmor=host.apparmor,
            selinux=host.selinux,
            init=host.init is not None,
            user_mapping=mapping,
            overlay_address=settings.overlay_address,
        )
        if sys.version_info < (3, 12):
            # The default one needs a thread for each child; from 3.12 on this is the default.
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
        seams = partial(open_seams, settings, catalog=catalog, host=host, host_mounts=host_mounts, mapping=mapping)
        asyncio.run(_run(settings, facts, seams, wrap))
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
            tls=TlsSource(settings.tls) if settings.tls is not None else None,
            grace=settings.grace,
        ),
    ):
        await stop.wait()
        _log.info("stopping; containers go on running")
