"""Between the messages about files, of the public protocol and of the executor's, and the domain."""

from __future__ import annotations

from slipway.executor.v1 import file_service_pb2 as executor_pb2
from slipway.v1 import container_service_pb2 as pb2

from api_service.conversion.times import timestamp
from api_service.nodes.files import ArchiveTarget, ChangeKind, FileChange, PathStat

_KINDS = {
    executor_pb2.CHANGE_KIND_MODIFIED: ChangeKind.MODIFIED,
    executor_pb2.CHANGE_KIND_ADDED: ChangeKind.ADDED,
    executor_pb2.CHANGE_KIND_DELETED: ChangeKind.DELETED,
}
_SHOWN_KINDS = {
    ChangeKind.MODIFIED: pb2.CHANGE_KIND_MODIFIED,
    ChangeKind.ADDED: pb2.CHANGE_KIND_ADDED,
    ChangeKind.DELETED: pb2.CHANGE_KIND_DELETED,
}


def change_from_proto(message: executor_pb2.FileChange) -> FileChange:
    return FileChange(path=message.path, kind=_KINDS[message.kind])


def change_to_proto(change: FileChange) -> pb2.Change:
    return pb2.Change(path=change.path, kind=_SHOWN_KINDS[change.kind])


def stat_from_proto(message: executor_pb2.PathStat) -> PathStat:
    return PathStat(
        name=message.name,
        size=message.size,
        mode=message.mode,
        modified=message.modified_at.ToNanoseconds(),
        link_target=message.link_target,
    )


def stat_to_proto(stat: PathStat) -> pb2.PathStat:
    return pb2.PathStat(
        name=stat.name,
        size=stat.size,
        mode=stat.mode,
        modified_at=timestamp(stat.modified),
        link_target=stat.link_target,
    )


def target_to_proto(target: ArchiveTarget) -> executor_pb2.ArchiveTarget:
    return executor_pb2.ArchiveTarget(
        container_id=target.container_id,
        path=target.path,
        no_overwrite_dir_non_dir=target.no_overwrite_dir_non_dir,
        copy_uid_gid=target.copy_uid_gid,
    )


def target_from_proto(message: pb2.CopyTarget) -> ArchiveTarget:
    """Without the container's id: that is looked up later."""
    return ArchiveTarget(
        container_id="",
        path=message.path,
        no_overwrite_dir_non_dir=message.no_overwrite_dir_non_dir,
        copy_uid_gid=message.copy_uid_gid,
    )


def piece_to_proto(piece: PathStat | bytes) -> pb2.CopyFromContainerResponse:
    if isinstance(piece, PathStat):
        return pb2.CopyFromContainerResponse(stat=stat_to_proto(piece))
    return pb2.CopyFromContainerResponse(chunk=piece)
