"""Bundles on this host: directories of ours, the container's own passwd, the host's hosts and resolv.conf."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import Internal, StartFailed, Violation
from executor_service.bundles import Bundles
from executor_service.cdi.edits import with_cdi_devices
from executor_service.cdi.files import DIRECTORIES
from executor_service.container import CONTAINER_ID, ContainerSpec, NetworkMode
from executor_service.mount_staging import StagedMount
from executor_service.network.files import (
    NameFiles,
    name_files,
    resolv_conf_content,
    restore_name_files,
    update_name_files,
    write_name_files,
)
from executor_service.network.sandbox import Sandbox
from executor_service.oci.block_devices import block_devices
from executor_service.oci.bundle_record import recorded_cgroup
from executor_service.oci.cgroup_parents import find_cgroups, make_parents, remove_parents
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.devices import find_devices
from executor_service.oci.host import HostFacts
from executor_service.oci.host_refusals import host_refusals
from executor_service.oci.leftovers import empty_cgroup
from executor_service.oci.mounts import NetworkFiles
from executor_service.oci.namespaces import NOTHING_JOINED, Joined
from executor_service.oci.program import check_program
from executor_service.oci.rootfs import check_device_paths, ensure_mounted_working_dir, ensure_working_dir
from executor_service.oci.runtime import Bundle, BundleUsers
from executor_service.oci.shm import shm_source, unmount_shm
from executor_service.oci.spec import build_spec
from executor_service.oci.user_mounts import check_targets
from executor_service.oci.users import ResolvedUser, check_mapped, resolve_user
from executor_service.paths import Paths
from executor_service.storage.mapped_ids import as_mapped_root
from executor_service.threads import finish
from executor_service.user_mapping import UserMapping

_SMALLEST_LAST_RESORT = 256 * 1024 * 1024  # bytes; a flood writes 80 MB in a second
_INT64_MAX = 2**63 - 1  # conmon reads the size as one
_CGROUP_TIMEOUT = 10  # seconds until killed processes must have left their cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBundles:
    """`cgroup_parent` is absolute below the cgroup root; `host_gateway` are the addresses that the name `host-gateway`
    stands for. `mapping`: the users of remapped containers. `resolv_conf` and `hosts` are the host's files."""

    paths: Paths
    host: HostFacts
    cgroups: CgroupTree
    cgroup_parent: str
    host_gateway: Sequence[str]
    mapping: UserMapping | None = None
    cdi_directories: Sequence[Path] = DIRECTORIES
    resolv_conf: Path = Path("/etc/resolv.conf")
    hosts: Path = Path("/etc/hosts")

    async def with_cdi_devices(self, spec: ContainerSpec) -> ContainerSpec:
        return await finish(lambda: with_cdi_devices(spec, self.cdi_directories))

    async def resolve_user(
        self, spec: ContainerSpec, *, rootfs: Path, mounts: Sequence[StagedMount] = ()
    ) -> ResolvedUser:
        return await finish(lambda: _resolve(spec, rootfs, mounts, self._mapping_of(spec)))

    async def refusals(self, spec: ContainerSpec) -> list[Violation]:
        return await finish(lambda: host_refusals(spec, self.host, storage=self.paths.storage))

    async def lay_out(
        self,
        spec: ContainerSpec,
        *,
        rootfs: Path,
        sandbox: Sandbox,
        user: ResolvedUser,
        mounts: Sequence[StagedMount] = (),
        joined: Joined = NOTHING_JOINED,
    ) -> Bundle:
        return await finish(
            lambda: self._lay_out(spec, rootfs=rootfs, sandbox=sandbox, user=user, mounts=mounts, joined=joined)
        )

    async def update_names(self, spec: ContainerSpec, *, before: Sandbox, after: Sandbox) -> None:
        await finish(
            lambda: update_name_files(
                self.paths.network_files(spec.id),
                old=self._name_files(spec, before),
                new=self._name_files(spec, after),
                owner=self._mapping_of(spec),
            )
        )

    async def restore_names(self, spec: ContainerSpec, sandbox: Sandbox) -> None:
        await finish(
            lambda: restore_name_files(
                self.paths.network_files(spec.id),
                spec,
                new=self._name_files(spec, sandbox),
                bare=self._name_files(spec, replace(sandbox, endpoints=())),
                embedded=resolv_conf_content(_text(self.resolv_conf), spec.names, own_namespace=True, embedded=True),
                owner=self._mapping_of(spec),
            )
        )

    async def remove_bundle(self, container_id: str) -> None:
        await finish(lambda: self._remove_bundle(container_id))

    async def remove_files(self, container_id: str) -> None:
        await finish(lambda: _remove(self.paths.container(container_id)))

    async def list_bundles(self) -> set[str]:
        return await finish(lambda: container_ids(self.paths.bundles))

    async def list_files(self) -> set[str]:
        return await finish(lambda: container_ids(self.paths.containers))

    async def logs_size(self) -> int:
        return await finish(self._logs_size)

    def _lay_out(
        self,
        spec: ContainerSpec,
        *,
        rootfs: Path,
        sandbox: Sandbox,
        user: ResolvedUser,
        mounts: Sequence[StagedMount],
        joined: Joined,
    ) -> Bundle:
        mapping = self._mapping_of(spec)
        bundle, log = self.paths.bundle(spec.id), self.paths.log(spec.id)
        files = self.paths.network_files(spec.id)
        for directory in (files.parent, files, log.parent, bundle):
            directory.mkdir(mode=0o700, exist_ok=True)
        devices = find_devices(spec)
        check_device_paths(rootfs, devices)
        config = build_spec(
            spec,
            rootfs=rootfs,
            netns_path=sandbox.netns_path,
            files=self._network_files(spec, sandbox, owner=mapping),
            user=user,
            cgroups_path=self.cgroup(spec),
            host=self.host,
            mounts=mounts,
            block_devices=block_devices(spec.resources),
            joined=joined,
            devices=devices,
            shm=shm_source(spec, self.paths, mapping),
        )
        if spec.cgroup_parent:
            make_parents(self.cgroups, self.cgroup(spec), owner=self.cgroup_parent)
        return Bundle(
            container_id=spec.id,
            directory=bundle,
            config=config,
            log_path=log,
            log_size_limit=_last_resort(spec.log.max_size),
            terminal=spec.terminal,
            stdin=spec.open_stdin,
            stdin_once=spec.stdin_once,
            runtime=spec.runtime,
            keeps_log=not spec.log.disabled,
            log_buffer=spec.log.buffer,
            users=_bundle_users(mapping, sandbox, user),
        )

    def _network_files(self, spec: ContainerSpec, sandbox: Sandbox, *, owner: UserMapping | None) -> NetworkFiles:
        """Of its own, written, or those of the container whose network it joins."""
        if spec.network_mode is NetworkMode.CONTAINER:
            return NetworkFiles.in_directory(self.paths.network_files(spec.network_container))
        directory = self.paths.network_files(spec.id)
        write_name_files(directory, self._name_files(spec, sandbox), owner=owner)
        return NetworkFiles.in_directory(directory)

    def _name_files(self, spec: ContainerSpec, sandbox: Sandbox) -> NameFiles:
        return name_files(
            spec,
            endpoints=sandbox.endpoints,
            host_gateway=self.host_gateway,
            host_hosts=_text(self.hosts),
            host_resolv_conf=_text(self.resolv_conf),
        )

    def _mapping_of(self, spec: ContainerSpec) -> UserMapping | None:
        if not spec.remapped:
            return None
        if self.mapping is None:
            raise Internal(f"container {spec.id}: remapped users on a node that remaps none")
        return self.mapping

    def _remove_bundle(self, container_id: str) -> None:
        bundle = self.paths.bundle(container_id)
        recorded = recorded_cgroup(bundle, container_id=container_id)
        for path in [recorded] if recorded else find_cgroups(self.cgroups, container_id):
            empty_cgroup(self.cgroups, path, timeout=_CGROUP_TIMEOUT)
            if path != f"{self.cgroup_parent}/{container_id}":
                remove_parents(self.cgroups, path, owner=self.cgroup_parent)
        unmount_shm(bundle)
        _remove(bundle)

    def cgroup(self, spec: ContainerSpec) -> str:
        """Where the container's cgroup is, below the root of the hierarchies."""
        return f"{spec.cgroup_parent or self.cgroup_parent}/{spec.id}"

    def _logs_size(self) -> int:
        return sum(
            entry.stat(follow_symlinks=False).st_size
            for container_id in container_ids(self.paths.containers)
            for entry in _entries(self.paths.containers / container_id / "logs")
        )


def _resolve(
    spec: ContainerSpec, rootfs: Path, mounts: Sequence[StagedMount], mapping: UserMapping | None
) -> ResolvedUser:
    # In the same visit to a worker thread: Docker makes a working directory that is missing.
    if mounts:
        check_targets(rootfs, mounts)
        as_mapped_root(mapping, lambda: ensure_mounted_working_dir(rootfs, spec.working_dir, mounts))
    else:
        as_mapped_root(mapping, lambda: ensure_working_dir(rootfs, spec.working_dir))
    user = resolve_user(rootfs, spec.user, spec.group_add)
    if mapping is not None:
        check_mapped(user, mapping, spec.user)
    if spec.init:
        check_program(rootfs, spec, user, mapping)
    return user


def _bundle_users(mapping: UserMapping | None, sandbox: Sandbox, user: ResolvedUser) -> BundleUsers | None:
    if mapping is None:
        return None
    uid, gid = mapping.outside(user.uid, user.gid)
    return BundleUsers(mapping=mapping, of=Path(sandbox.netns_path), uid=uid, gid=gid)


def _last_resort(max_size: int) -> int:
    """conmon throws the log's content away at this size: far beyond what it can grow to between two looks of the
    rotator, so only while no executor runs."""
    return min(max(max_size * 10, _SMALLEST_LAST_RESORT), _INT64_MAX) if max_size else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StartFailed(f"the host's {path} cannot be read: {error.strerror}", exit_code=128) from error


def container_ids(directory: Path) -> set[str]:
    """Ids of the containers that have a directory there; whatever else is there is not ours to touch. Blocks."""
    return {entry.name for entry in _entries(directory) if CONTAINER_ID.fullmatch(entry.name)}


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(directory: Path) -> None:
    """rmtree never follows a symlink, and what it deletes is a directory of ours (0700)."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return


_: type[Bundles] = NodeBundles
