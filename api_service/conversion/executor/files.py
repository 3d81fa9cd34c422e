"""The files of containers."""

from __future__ import annotations

from slipway.executor.v1 import file_service_pb2 as pb2

from api_service.executor_client.files import ArchiveTarget, ChangeKind, FileChange, PathStat

_KINDS = {
    pb2.CHANGE_KIND_MODIFIED: ChangeKind.MODIFIED,
    pb2.CHANGE_KIND_ADDED: ChangeKind.ADDED,
    pb2.CHANGE_KIND_DELETED: ChangeKind.DELETED,
}


def change_from_proto(message: pb2.FileChange) -> FileChange:
    return FileChange(path=message.path, kind=_KINDS[message.kind])


def stat_from_proto(message: pb2.PathStat) -> PathStat:
    return PathStat(
        name=message.name,
        size=message.size,
        mode=message.mode,
        modified=message.modified_at.ToNanoseconds(),
        link_target=message.link_target,
    )


def target_to_proto(target: ArchiveTarget) -> pb2.ArchiveTarget:
    return pb2.ArchiveTarget(
        container_id=target.container_id,
        path=target.path,
        no_overwrite_dir_non_dir=target.no_overwrite_dir_non_dir,
        copy_uid_gid=target.copy_uid_gid,
    )
