"""A tar archive into a directory of a container.

The archive is taken in whole, and read once, before anything of the container is touched: a client that is slow, or
goes away half-way, holds nothing and has changed nothing. gRPC cannot tell its going from its end, the archive can.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import BinaryIO

from common.errors import FailedPrecondition, InvalidArgument
from executor_service.container import ContainerSpec
from executor_service.container_record import ContainerRecord, Phase
from executor_service.files.owners import Owners
from executor_service.files.refusals import corrupt_archive, path_errors
from executor_service.files.resolve import target_directory
from executor_service.files.threads import Check
from executor_service.files.unpack import TreeUnpacker, UnpackRules, check_archive
from executor_service.node import Node
from executor_service.operations.file_root import check_path, container_root, refuse_below_mount, usable
from executor_service.storage.archive import SeekingSource
from executor_service.storage.mapped_ids import as_mapped_root
from executor_service.storage.spool import spooled
from executor_service.storage.tar_reader import TarReader

_MAX_BYTES = 32 << 30  # of an archive, packed or not
_MAX_ENTRIES = 1_000_000


async def file_put(
    node: Node, archive: AsyncIterator[bytes], *, container_id: str, path: str, rules: UnpackRules
) -> None:
    """Raises NotFound for the path, InvalidArgument (`CORRUPT_ARCHIVE`), FailedPrecondition, ResourceExhausted. What
    was unpacked before an error stays."""
    check_path(path)
    usable(node, container_id)
    try:
        async with spooled(archive, directory=node.paths.containers, max_bytes=_MAX_BYTES) as plain:
            record, spec = usable(node, container_id)
            _refuse_read_only(record, spec)
            refuse_below_mount(record, spec, path)
            await _unpack(node, record, plain, path=path, rules=rules)
    except InvalidArgument as error:
        if error.reason == "CORRUPT_IMAGE":
            raise corrupt_archive(error.message) from error
        raise


async def _unpack(node: Node, record: ContainerRecord, plain: BinaryIO, *, path: str, rules: UnpackRules) -> None:
    with path_errors(record.id, path):
        async with container_root(node, record) as root:

            def work(check: Check) -> None:
                check_archive(_reader(plain), check)
                as_mapped_root(root.mapping, lambda: unpack(check))

            def unpack(check: Check) -> None:
                with target_directory(root.descriptor, path) as target:
                    whole = os.path.samestat(os.fstat(root.descriptor), os.fstat(target))
                    owners = Owners(root.mapping)
                    unpacker = TreeUnpacker(target, whole=whole, rules=rules, check=check, owners=owners)
                    unpacker.unpack(_reader(plain))

            await node.copies.finish(work)


def _reader(plain: BinaryIO) -> TarReader:
    return TarReader(SeekingSource(plain), max_entries=_MAX_ENTRIES)


def _refuse_read_only(record: ContainerRecord, spec: ContainerSpec) -> None:
    """While it runs the kernel refuses, and allows what is mounted writable."""
    if spec.readonly_rootfs and record.phase is not Phase.RUNNING:
        raise FailedPrecondition(
            f"container {record.id!r}: its root file system is read-only (readonly_rootfs); start it, and copy into a "
            "volume that it has mounted",
            resource_type="container",
            resource_name=record.id,
            reason="READ_ONLY",
        )
