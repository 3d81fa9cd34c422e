"""Between the messages about the files of containers and the domain."""

from __future__ import annotations

from slipway.v1 import container_service_pb2 as pb2

from api_service.conversion.times import timestamp
from api_service.executor_client.files import ArchiveTarget, ChangeKind, FileChange, PathStat

_KINDS = {
    ChangeKind.MODIFIED: pb2.CHANGE_KIND_MODIFIED,
    ChangeKind.ADDED: pb2.CHANGE_KIND_ADDED,
    ChangeKind.DELETED: pb2.CHANGE_KIND_DELETED,
}


def change_to_proto(change: FileChange) -> pb2.Change:
    return pb2.Change(path=change.path, kind=_KINDS[change.kind])


def stat_to_proto(stat: PathStat) -> pb2.PathStat:
    return pb2.PathStat(
        name=stat.name,
        size=stat.size,
        mode=stat.mode,
        modified_at=timestamp(stat.modified),
        link_target=stat.link_target,
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
