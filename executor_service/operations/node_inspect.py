"""What the node is and can do, and what is on its disk."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from executor_service.node import Node
from executor_service.oci.cgroup_features import CgroupFeatures
from executor_service.storage.image_config import host_architecture
from executor_service.storage.mount_tree import recursive_read_only
from executor_service.user_mapping import UserMapping


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change while the executor runs. `warnings` are sentences about what the host lacks, `capabilities`
    those that containers can be given."""

    version: str
    cgroup_layout: str
    runtimes: Sequence[str]  # the default first
    warnings: Sequence[str]
    cgroups: CgroupFeatures = field(default_factory=CgroupFeatures)
    capabilities: Sequence[str] = ()
    seccomp: bool = False
    apparmor: bool = False
    selinux: bool = False
    init: bool = False
    user_mapping: UserMapping | None = None
    overlay_address: IPv4Address | IPv6Address | None = None  # as configured


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    node_id: str
    facts: NodeFacts
    hostname: str
    architecture: str
    kernel_version: str
    cpus: int
    memory: int  # bytes
    ipv4_forwarding: bool
    recursive_read_only: bool = False
    overlay_address: str = ""  # empty: no other node reaches it


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Bytes."""

    images: int
    containers: int
    logs: int
    volumes: int = 0


def node_inspect(node: Node, facts: NodeFacts) -> NodeDescription:
    return NodeDescription(
        node_id=node.journal.node_id,
        facts=facts,
        hostname=platform.node(),
        architecture=host_architecture(),
        kernel_version=platform.release(),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        ipv4_forwarding=_forwarding(),
        recursive_read_only=recursive_read_only(),
        overlay_address=str(facts.overlay_address) if facts.overlay_address is not None else _default_address(),
    )


async def disk_usage(node: Node, *, only: Collection[str] = ()) -> DiskUsage:
    """Of everything; with `only` of these containers' writable layers."""
    known = [record.id for record in node.records.all() if record.spec is not None]
    ids = [container_id for container_id in known if not only or container_id in only]
    return DiskUsage(
        images=0 if only else await node.seams.images.disk_usage(),
        containers=sum([await node.seams.snapshots.disk_usage(container_id) for container_id in ids]),
        logs=0 if only else await node.seams.bundles.logs_size(),
        volumes=0 if only else sum(volume.size for volume in await node.seams.volumes.list(size=True)),
    )


def _default_address() -> str:
    """What this host would send with to the world. Nothing is sent: udp(7)"""
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):  # RFC 5737, RFC 3849
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((anywhere, 9))
            return str(probe.getsockname()[0])
    return ""


def _forwarding() -> bool:
    try:
        return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    except OSError:
        return False
