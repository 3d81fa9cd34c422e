"""The real seams: this host's storage, network and OCI runtimes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from common.sqlite import Database
from executor_service import journal, records
from executor_service.config import Settings
from executor_service.dns import elsewhere
from executor_service.dns.containers import EmbeddedNames
from executor_service.dns.elsewhere import StoredNamesElsewhere
from executor_service.dns.service import NameServer
from executor_service.mount_staging import HostMounts
from executor_service.network import port_leases
from executor_service.network import records as network_records
from executor_service.network.bridge_watch import watch_bridges
from executor_service.network.networks import Networks
from executor_service.network.port_publisher import HostPorts
from executor_service.network.sandboxes import Sandboxes
from executor_service.network.table_watch import watch_table
from executor_service.node_bundles import NodeBundles
from executor_service.node_cgroups import NodeCgroups
from executor_service.oci.cgroup_moves import CgroupMoves
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.conmon_runtime import ConmonRuntime
from executor_service.oci.host import HostFacts
from executor_service.oci.runtime_execs import RuntimeExecs
from executor_service.oci.runtimes import RuntimeCatalog
from executor_service.registry.client import registry_client
from executor_service.registry.target import RegistryTargets
from executor_service.seams import Seams
from executor_service.storage.host_namespace import HostNamespace
from executor_service.storage.mapped_trees import mapped_storage
from executor_service.storage.node import open_storage
from executor_service.storage.volumes import LocalVolumes
from executor_service.user_mapping import UserMapping

SCHEMA = journal.SCHEMA + records.SCHEMA + network_records.SCHEMA + port_leases.SCHEMA + elsewhere.SCHEMA


@asynccontextmanager
async def open_seams(
    settings: Settings,
    *,
    catalog: RuntimeCatalog,
    host: HostFacts,
    host_mounts: int | None = None,
    mapping: UserMapping | None = None,
) -> AsyncIterator[Seams]:
    """Opened in the order they need each other.

    `host_mounts`: the mount namespace that this process came from, if it left it.
    Raises FailedPrecondition when the bridge cannot be had, Unavailable or FailedPrecondition when the database cannot.
    """
    paths, bridge = settings.paths, settings.bridge_config
    for directory in (paths.containers, paths.bundles, paths.runtime):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    cgroups = CgroupTree.probe()
    moves = CgroupMoves(cgroups)
    namespace = HostNamespace(host_mounts)
    async with (
        mapped_storage(mapping, storage=paths.storage, run=paths.mapped) as mapped,
        Database(paths.database, schema=SCHEMA) as database,
        open_storage(paths.storage, limits=settings.storage_limits, mapped=mapped, roots=paths.roots) as storage,
        LocalVolumes(paths.volumes, host=namespace) as volumes,
        HostPorts.open(table=bridge.table, database=database) as ports,
        Sandboxes(replace(bridge, loopback_forwarder=ports.loopback_forwarder), database, mapping) as network,
        watch_table(bridge.table, partial(_restore_rules, network.networks, ports)),
        watch_bridges(network.networks.has_bridge, network.restore_bridges),
        NameServer() as name_server,
        RuntimeExecs.open(catalog=catalog, state_root=paths.runtime, moves=moves) as execs,
    ):
        names_elsewhere = StoredNamesElsewhere(name_server, database)
        await names_elsewhere.load()
        bundles = _bundles(settings, host, cgroups, mapping)
        certificates, stall = settings.registry_certificates, settings.registry_stall
        yield Seams(
            database=database,
            images=storage.images,
            registries=partial(registry_client, certificates=certificates, stall=stall),
            targets=RegistryTargets(certificates=certificates, stall=stall),
            snapshots=storage.snapshots,
            volumes=volumes,
            mounts=HostMounts(
                paths.mounts, volumes=volumes, snapshots=storage.snapshots, host=namespace, mapped=mapped
            ),
            networks=network.networks,
            network=network,
            names=EmbeddedNames(name_server, network.networks.find),
            names_elsewhere=names_elsewhere,
            ports=ports,
            runtime=ConmonRuntime(catalog=catalog, state_root=paths.runtime, cgroups=cgroups),
            execs=execs,
            bundles=bundles,
            cgroups=NodeCgroups(tree=cgroups, cgroup_of=bundles.cgroup, moves=moves),
        )


def _bundles(settings: Settings, host: HostFacts, cgroups: CgroupTree, mapping: UserMapping | None) -> NodeBundles:
    bridge = settings.bridge_config
    return NodeBundles(
        paths=settings.paths,
        host=host,
        cgroups=cgroups,
        cgroup_parent=settings.cgroup_parent,
        mapping=mapping,
        cdi_directories=settings.cdi_directories,
        host_gateway=(str(bridge.ipv4_subnet[1]), str(bridge.ipv6_subnet[1])),
    )


async def _restore_rules(networks: Networks, ports: HostPorts) -> None:
    await networks.restore_rules()
    await ports.lead_again()
