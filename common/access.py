"""Which role may call which RPC: the one table, of every service of both services.

It is for callers that show a certificate. Who connects to a unix socket has passed its file mode, and may call
everything. An RPC that is not in the table may be called by nobody with a certificate.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.identity import Role

Roles = frozenset[Role]

_LOOK: Roles = frozenset({Role.READER, Role.OPERATOR, Role.ADMIN})  # what is, and what containers say
_CHANGE: Roles = frozenset({Role.OPERATOR, Role.ADMIN})  # and what is inside containers and images
_ADMINISTER: Roles = frozenset({Role.ADMIN})  # the machines
_API: Roles = frozenset({Role.API})  # the services among themselves
_ANYBODY: Roles = frozenset(Role)

_TABLE: Mapping[str, Mapping[str, Roles]] = {
    "slipway.v1.ContainerService": {
        "CreateContainer": _CHANGE,
        "StartContainer": _CHANGE,
        "StopContainer": _CHANGE,
        "KillContainer": _CHANGE,
        "RestartContainer": _CHANGE,
        "RemoveContainer": _CHANGE,
        "InspectContainer": _LOOK,
        "ListContainers": _LOOK,
        "WaitContainer": _LOOK,
        "RenameContainer": _CHANGE,
        "StreamLogs": _LOOK,
        "PauseContainer": _CHANGE,
        "UnpauseContainer": _CHANGE,
        "UpdateContainer": _CHANGE,
        "AttachContainer": _CHANGE,
        "ResizeContainerTty": _CHANGE,
        "StreamStats": _LOOK,
        "ListProcesses": _LOOK,
        "ListChanges": _LOOK,
        "CopyToContainer": _CHANGE,
        "CopyFromContainer": _CHANGE,
        "ExportContainer": _CHANGE,
        "PruneContainers": _CHANGE,
    },
    "slipway.v1.ExecService": {
        "CreateExec": _CHANGE,
        "StartExec": _CHANGE,
        "InspectExec": _LOOK,
        "ResizeExecTty": _CHANGE,
    },
    "slipway.v1.ImageService": {
        "LoadImage": _CHANGE,
        "ImportImage": _CHANGE,
        "PullImage": _CHANGE,
        "PushImage": _CHANGE,
        "ListImages": _LOOK,
        "InspectImage": _LOOK,
        "TagImage": _CHANGE,
        "RemoveImage": _CHANGE,
        "ListImageHistory": _LOOK,
        "SaveImage": _CHANGE,
        "CommitContainer": _CHANGE,
        "PruneImages": _CHANGE,
    },
    "slipway.v1.NetworkService": {
        "CreateNetwork": _CHANGE,
        "InspectNetwork": _LOOK,
        "ListNetworks": _LOOK,
        "RemoveNetwork": _CHANGE,
        "ConnectContainer": _CHANGE,
        "DisconnectContainer": _CHANGE,
        "PruneNetworks": _CHANGE,
    },
    "slipway.v1.NodeService": {
        "AddNode": _ADMINISTER,
        "InspectNode": _LOOK,
        "ListNodes": _LOOK,
        "UpdateNode": _ADMINISTER,
        "RemoveNode": _ADMINISTER,
    },
    "slipway.v1.SystemService": {
        "GetVersion": _LOOK,
        "GetInfo": _LOOK,
        "StreamEvents": _LOOK,
        "GetDiskUsage": _LOOK,
    },
    "slipway.v1.VolumeService": {
        "CreateVolume": _CHANGE,
        "InspectVolume": _LOOK,
        "ListVolumes": _LOOK,
        "RemoveVolume": _CHANGE,
        "PruneVolumes": _CHANGE,
    },
    "slipway.executor.v1.FileService": {
        "ListChanges": _API,
        "PutArchive": _API,
        "GetArchive": _API,
        "ExportRoot": _API,
    },
    "slipway.executor.v1.ImageStoreService": {
        "LoadImage": _API,
        "ImportImage": _API,
        "PullImage": _API,
        "PushImage": _API,
        "SaveImages": _API,
        "GetImage": _API,
        "CommitContainer": _API,
        "ListImages": _API,
        "RemoveImage": _API,
    },
    "slipway.executor.v1.NetworkStoreService": {
        "CreateNetwork": _API,
        "RemoveNetwork": _API,
        "ListNetworks": _API,
        "SetOverlayPeers": _API,
        "SetNamesElsewhere": _API,
    },
    "slipway.executor.v1.NodeService": {
        "GetNode": _API,
        "GetDiskUsage": _API,
        "RenewLease": _API,
    },
    "slipway.executor.v1.RuntimeService": {
        "CreateContainer": _API,
        "StartContainer": _API,
        "SignalContainer": _API,
        "StopContainer": _API,
        "RemoveContainer": _API,
        "ListContainers": _API,
        "ReadLogs": _API,
        "PauseContainer": _API,
        "UnpauseContainer": _API,
        "UpdateContainer": _API,
        "AttachContainer": _API,
        "ResizeTerminal": _API,
        "Exec": _API,
        "ResizeExecTerminal": _API,
        "ConnectNetwork": _API,
        "DisconnectNetwork": _API,
        "ReadStats": _API,
        "ListProcesses": _API,
        "FollowJournal": _API,
    },
    "slipway.executor.v1.VolumeStoreService": {
        "CreateVolume": _API,
        "RemoveVolume": _API,
        "ListVolumes": _API,
    },
    "grpc.health.v1.Health": {"Check": _ANYBODY, "Watch": _ANYBODY, "List": _ANYBODY},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _ANYBODY},
}

ACCESS: Mapping[str, Roles] = {
    f"/{service}/{rpc}": roles for service, rpcs in _TABLE.items() for rpc, roles in rpcs.items()
}
