"""What a create asks for, and the record that it makes of request, image and node. Writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from api_service.executor_client.images import RegistryCredentials
from api_service.executor_client.node import NodeFacts
from api_service.nodes.registry import Node
from api_service.operations.container_image import ImageWish, PullPolicy
from api_service.operations.engine import Engine
from api_service.operations.image_config_merge import command_line, merge_image_config, validate_command
from api_service.operations.image_rules import check_image_config
from api_service.operations.mount_plan import MountPlan, plan_mounts
from api_service.operations.platform import check_platform
from api_service.operations.published_ports import validate_published_ports
from api_service.records.config import ContainerConfig, HostConfig, NetworkingConfig
from api_service.records.container import ContainerRecord, Phase
from api_service.records.image import ImageRecord
from api_service.validation.container_create import Creation
from api_service.validation.names import generate_id, short_id
from api_service.validation.network_mode import HOST, joined_network
from api_service.validation.restart_policy import validate_unhealthy
from common.errors import InvalidArgument, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """`violations`: the rules of the protocol that the request breaks; they are reported with all others."""

    name: str
    config: ContainerConfig
    host_config: HostConfig
    networking_config: NetworkingConfig
    platform: str = ""
    pull_policy: PullPolicy = PullPolicy.DEFAULT
    credentials: RegistryCredentials = field(default_factory=RegistryCredentials)
    request_id: str = ""
    violations: Sequence[Violation] = ()

    @property
    def image(self) -> ImageWish:
        return ImageWish(
            text=self.config.image, platform=self.platform, policy=self.pull_policy, credentials=self.credentials
        )


async def draft_container(
    engine: Engine, request: CreateRequest, creation: Creation, image: ImageRecord, facts: NodeFacts, node: Node
) -> tuple[ContainerRecord, MountPlan]:
    """The record as it will be, but for its name. Raises InvalidArgument for what request and image make together."""
    check_image_config(engine, image.config, field="config.image")
    config = merge_image_config(creation.config, image.config)
    broken = [
        *validate_command(config),
        *validate_unhealthy(creation.host_config.restart_policy, config.healthcheck, "host_config.restart_policy"),
        *validate_published_ports(config, creation.host_config),
    ]
    if broken:
        raise InvalidArgument(violations=broken)
    platform = check_platform(request.platform, image, node_platform=f"{facts.os}/{facts.architecture}")
    container_id = generate_id()
    named = await _named(engine, config, creation.host_config, facts, container_id)
    path, *args = command_line(config)
    plan = await plan_mounts(engine, config, creation.host_config, node=node.name, container_id=container_id)
    draft = ContainerRecord(
        id=container_id,
        name="",
        created_at=engine.clock(),
        phase=Phase.CREATING,
        path=path,
        args=tuple(args),
        config=named,
        host_config=creation.host_config,
        networking_config=creation.networking_config,
        image_id=image.id,
        node=node.name,
        platform=platform,
        request_id=request.request_id,
        creator=engine.claims.replica,
        mount_points=plan.points,
    )
    return draft, plan


async def _named(
    engine: Engine, config: ContainerConfig, host: HostConfig, facts: NodeFacts, container_id: str
) -> ContainerConfig:
    """With its host name: of who shares a network, that network's owner's, with the domain."""
    if host.network_mode == HOST or host.uts_mode == HOST:
        return dataclasses.replace(config, hostname=config.hostname or facts.hostname)
    owner = joined_network(host.network_mode)
    shared = await engine.containers.get(owner) if owner is not None else None
    if shared is None:
        return dataclasses.replace(config, hostname=config.hostname or short_id(container_id))
    names = shared.record.config
    return dataclasses.replace(config, hostname=names.hostname, domainname=names.domainname)
