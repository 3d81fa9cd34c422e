"""What the validators need to know of a node, from what the node says of itself."""

from __future__ import annotations

from api_service.executor_client.node import NodeFacts
from api_service.validation.host_facts import HostFacts


def host_facts(facts: NodeFacts) -> HostFacts:
    return HostFacts(
        runtimes=facts.runtimes,
        ipv4_forwarding=facts.ipv4_forwarding,
        recursive_read_only=facts.recursive_read_only,
        cgroup_features=facts.cgroup_features,
        cpuset_cpus=facts.cpuset_cpus,
        cpuset_mems=facts.cpuset_mems,
        cpus=facts.cpus,
        capabilities=frozenset(facts.capabilities),
        cgroup_layout=facts.cgroup_layout,
        seccomp=facts.seccomp,
        apparmor=facts.apparmor,
        init=facts.init,
        remapped_ids=facts.user_mapping.count if facts.user_mapping is not None else 0,
    )
