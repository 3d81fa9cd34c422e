"""What a node is and can do, and how full it is."""

from __future__ import annotations

from slipway.executor.v1 import node_service_pb2 as pb2

from api_service.executor_client.node import DiskUsage, NodeFacts, UserMapping


def facts_from_proto(message: pb2.GetNodeResponse) -> NodeFacts:
    return NodeFacts(
        node_id=message.node_id,
        version=message.version,
        hostname=message.hostname,
        os=message.os,
        architecture=message.architecture,
        kernel_version=message.kernel_version,
        cpus=message.cpus,
        memory=message.memory,
        cgroup_layout=message.cgroup_layout,
        runtimes=tuple(message.runtimes),
        ipv4_forwarding=message.ipv4_forwarding,
        warnings=tuple(message.warnings),
        capabilities=tuple(message.capabilities),
        cgroup_features=frozenset(message.cgroup_features),
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        seccomp=message.seccomp,
        apparmor=message.apparmor,
        selinux=message.selinux,
        recursive_read_only=message.recursive_read_only,
        init=message.init,
        user_mapping=_mapping_from_proto(message.user_mapping) if message.HasField("user_mapping") else None,
        overlay_address=message.overlay_address,
    )


def _mapping_from_proto(message: pb2.UserMapping) -> UserMapping:
    return UserMapping(first_uid=message.first_uid, first_gid=message.first_gid, count=message.count)


def disk_usage_from_proto(message: pb2.GetDiskUsageResponse) -> DiskUsage:
    return DiskUsage(
        images_size=message.images_size,
        containers_size=message.containers_size,
        logs_size=message.logs_size,
        volumes_size=message.volumes_size,
    )
