"""The files of containers."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import file_service_pb2 as pb

from executor_service.files.changes import Change, ChangeKind
from executor_service.files.resolve import PathStat

_KINDS = {
    ChangeKind.MODIFIED: pb.CHANGE_KIND_MODIFIED,
    ChangeKind.ADDED: pb.CHANGE_KIND_ADDED,
    ChangeKind.DELETED: pb.CHANGE_KIND_DELETED,
}


def change_to_proto(change: Change) -> pb.FileChange:
    return pb.FileChange(path=change.path, kind=_KINDS[change.kind])


def stat_to_proto(stat: PathStat) -> pb.PathStat:
    modified = Timestamp()
    modified.FromNanoseconds(max(stat.modified, 0))
    return pb.PathStat(
        name=stat.name, size=stat.size, mode=stat.mode, modified_at=modified, link_target=stat.link_target
    )
