"""What the node is and can do, and how full it is."""

from __future__ import annotations

from slipway.executor.v1 import node_service_pb2 as pb2

from common.protocol_version import OURS
from executor_service.operations.node_inspect import DiskUsage, NodeDescription
from executor_service.user_mapping import UserMapping


def node_to_proto(node: NodeDescription) -> pb2.GetNodeResponse:
    return pb2.GetNodeResponse(
        protocol_version=OURS.latest,
        oldest_protocol_version=OURS.oldest,
        node_id=node.node_id,
        version=node.facts.version,
        hostname=node.hostname,
        os="linux",
        architecture=node.architecture,
        kernel_version=node.kernel_version,
        cpus=node.cpus,
        memory=node.memory,
        cgroup_layout=node.facts.cgroup_layout,
        runtimes=node.facts.runtimes,
        ipv4_forwarding=node.ipv4_forwarding,
        warnings=node.facts.warnings,
        cgroup_features=sorted(node.facts.cgroups.names),
        cpuset_cpus=node.facts.cgroups.cpus,
        cpuset_mems=node.facts.cgroups.mems,
        recursive_read_only=node.recursive_read_only,
        capabilities=node.facts.capabilities,
        seccomp=node.facts.seccomp,
        apparmor=node.facts.apparmor,
        selinux=node.facts.selinux,
        init=node.facts.init,
        user_mapping=_mapping_to_proto(node.facts.user_mapping),
        overlay_address=node.overlay_address,
    )


def _mapping_to_proto(mapping: UserMapping | None) -> pb2.UserMapping | None:
    if mapping is None:
        return None
    return pb2.UserMapping(first_uid=mapping.first_uid, first_gid=mapping.first_gid, count=mapping.count)


def disk_usage_to_proto(usage: DiskUsage) -> pb2.GetDiskUsageResponse:
    return pb2.GetDiskUsageResponse(
        images_size=usage.images, containers_size=usage.containers, logs_size=usage.logs, volumes_size=usage.volumes
    )
