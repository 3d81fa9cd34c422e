"""The part of `reset` that is done in the executor's mount namespace, where the mounts are.

It does not trust the records, which may be what is damaged: containers are found by their directories.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from functools import partial

import structlog

from common.errors import SlipwayError
from common.sqlite import Database
from executor_service.config import ResetSettings
from executor_service.host_seams import SCHEMA
from executor_service.instance_lock import instance_lock
from executor_service.lease import end_guard
from executor_service.mount_staging import remove_staged
from executor_service.network.sandboxes import Sandboxes
from executor_service.node_bundles import container_ids
from executor_service.oci.cgroup_parents import remove_all_parents
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.conmon_runtime import ConmonRuntime
from executor_service.oci.leftovers import empty_cgroup
from executor_service.oci.mount_namespace import enter_runtime_mount_namespace
from executor_service.oci.runtimes import RuntimeCatalog
from executor_service.oci.sealed_runtimes import unseal_runtimes
from executor_service.oci.shm import unmount_shm
from executor_service.storage.mapped_trees import remove_mapped_trees
from executor_service.storage.node import open_storage
from executor_service.storage.volume_mounts import unmount_below
from executor_service.storage.volumes import has_volumes
from executor_service.threads import finish

_log = structlog.get_logger(__name__)

_CGROUP_TIMEOUT = 10  # seconds


def reset_inside(settings: ResetSettings) -> None:
    """Everything but the namespace. Call it before there is any thread."""
    with instance_lock(settings.paths):
        catalog = RuntimeCatalog.probe(configured=settings.runtimes, default=settings.default_runtime)
        enter_runtime_mount_namespace(settings.run_dir, catalog)
        asyncio.run(_remove_everything(settings, catalog))
        unseal_runtimes(settings.paths.programs)


async def _remove_everything(settings: ResetSettings, catalog: RuntimeCatalog) -> None:
    paths, cgroups = settings.paths, CgroupTree.probe()
    runtime = ConmonRuntime(catalog=catalog, state_root=paths.runtime, cgroups=cgroups)
    for container_id in sorted(container_ids(paths.bundles)):
        for name in catalog.runtimes:
            await runtime.delete(container_id, bundle=paths.bundle(container_id), runtime=name)
        await finish(partial(unmount_shm, paths.bundle(container_id)))
    async with open_storage(paths.storage, roots=paths.roots) as storage:
        for container_id in sorted(await storage.snapshots.list()):
            await storage.snapshots.remove(container_id)
    await _remove_network(settings)
    await finish(lambda: _remove_files(settings, cgroups))


async def _remove_network(settings: ResetSettings) -> None:
    paths = settings.paths
    try:
        async with Database(paths.database, schema=SCHEMA) as database:
            await Sandboxes(settings.bridge_config, database).teardown()
    except SlipwayError as error:
        if error.reason != "DATABASE_CORRUPT":
            raise
        _log.warning("the records are damaged; going on without them", error=error.message)
        for suffix in ("", "-wal", "-shm"):
            paths.database.with_name(f"{paths.database.name}{suffix}").unlink(missing_ok=True)
        async with Database(paths.database, schema=SCHEMA) as database:
            await Sandboxes(settings.bridge_config, database).teardown()


def _remove_files(settings: ResetSettings, cgroups: CgroupTree) -> None:
    paths = settings.paths
    if settings.cgroup_parent:
        empty_cgroup(cgroups, settings.cgroup_parent, timeout=_CGROUP_TIMEOUT)
        remove_all_parents(cgroups, owner=settings.cgroup_parent)
    end_guard(paths.lease)
    remove_staged(paths.mounts)
    remove_mapped_trees(paths.mapped)
    if paths.roots.is_dir():
        paths.roots.rmdir()
    unmount_below(paths.volumes)
    unwanted = [paths.bundles, paths.runtime, paths.containers]
    unwanted += [paths.storage] if settings.images else []
    unwanted += [paths.volumes] if settings.volumes or not has_volumes(paths.volumes) else []
    for directory in unwanted:
        if directory.is_dir():
            shutil.rmtree(directory)
    for path in paths.root.glob(f"{paths.database.name}*"):
        path.unlink()
    if not os.listdir(paths.root):  # noqa: PTH208 - only whether there is anything
        paths.root.rmdir()
