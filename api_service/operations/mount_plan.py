"""What a container will have mounted, of everything by which a request and its image ask for it.

The order is Docker's: mounts of other containers, then binds, mounts and tmpfs, which replace them; and where nothing
is mounted yet, the anonymous volumes of `config.volumes`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace

from api_service.operations.engine import Engine
from api_service.operations.image_resolve import resolve_image
from api_service.records.config import ContainerConfig, HostConfig
from api_service.records.mount import (
    BindOptions,
    ImageOptions,
    Mount,
    MountPoint,
    MountType,
    TmpfsOptions,
    VolumeDriver,
    VolumeOptions,
)
from api_service.records.volume import VolumeRecord
from api_service.validation.binds import DEFAULT_PROPAGATION, parse_bind
from api_service.validation.mount_paths import parse_destination, parse_host_path, parse_subpath
from api_service.validation.tmpfs import split_tmpfs_options, tmpfs_options
from api_service.validation.volumes import parse_volumes_from
from common.errors import InvalidArgument, Violation

ANONYMOUS_LABELS = {"com.docker.volume.anonymous": ""}
_HOST_FIELD = "host_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPlan:
    """`volumes`: those that the points name, as they are to be made if they do not exist."""

    points: tuple[MountPoint, ...]
    volumes: tuple[VolumeRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A mount, and how its volume is to be made."""

    point: MountPoint
    labels: Mapping[str, str]
    driver: VolumeDriver


async def plan_mounts(
    engine: Engine, config: ContainerConfig, host_config: HostConfig, *, node: str, container_id: str
) -> MountPlan:
    """Of a valid, merged configuration. Raises NotFound for a container or an image, InvalidArgument when two mounts
    want a volume made in different ways."""
    asked = {each.point.destination: each async for each in _inherited(engine, host_config)}
    for each in _given(host_config):
        if each.point.type is MountType.IMAGE:
            image = await resolve_image(engine, each.point.source, field=f"{each.point.field}.source")
            each = replace(each, point=replace(each.point, source=image.id))
        asked[each.point.destination] = each
    for path in config.volumes:
        if path not in asked:
            asked[path] = _Asked(point=_anonymous(path, field="config.volumes"), labels={}, driver=VolumeDriver())
    points = tuple(asked[path].point for path in sorted(asked, key=lambda path: path.split("/")))
    volumes = _volumes(asked, node=node, made_for=container_id, now=engine.clock())
    return MountPlan(points=points, volumes=tuple(volumes.values()))


def _volumes(asked: Mapping[str, _Asked], *, node: str, made_for: str, now: int) -> dict[str, VolumeRecord]:
    volumes: dict[str, VolumeRecord] = {}
    for each in asked.values():
        point = each.point
        if point.type is not MountType.VOLUME:
            continue
        before = volumes.get(point.source)
        if before is not None and each.driver.options and dict(before.options) != dict(each.driver.options):
            why = f"another mount wants the volume {point.source!r} with other driver options; give them once"
            raise InvalidArgument(violations=[Violation(field=point.field, description=why)])
        volumes[point.source] = before or VolumeRecord(
            name=point.source,
            created_at=now,
            node=node,
            options=dict(each.driver.options),
            labels={**(ANONYMOUS_LABELS if point.anonymous else {}), **each.labels},
            anonymous=point.anonymous,
            made_for=made_for,
        )
    return volumes


async def _inherited(engine: Engine, host_config: HostConfig) -> AsyncIterator[_Asked]:
    for index, entry in enumerate(host_config.volumes_from):
        container, read_only = parse_volumes_from(entry)
        for point in (await engine.containers.find(container)).mount_points:
            if point.type is MountType.TMPFS:
                continue  # memory of its own each
            taken = replace(
                point,
                read_only=point.read_only or read_only,
                populate=False,
                field=f"{_HOST_FIELD}.volumes_from[{index}]",
            )
            yield _Asked(point=taken, labels={}, driver=VolumeDriver())


def _given(host_config: HostConfig) -> Iterator[_Asked]:
    for index, text in enumerate(host_config.binds):
        yield _Asked(point=_of_bind(text, f"{_HOST_FIELD}.binds[{index}]"), labels={}, driver=VolumeDriver())
    for index, mount in enumerate(host_config.mounts):
        options = mount.volume_options or VolumeOptions()
        point = _of_mount(mount, f"{_HOST_FIELD}.mounts[{index}]")
        yield _Asked(point=point, labels=options.labels, driver=options.driver_config)
    for path, text in host_config.tmpfs.items():
        memory = tmpfs_options(split_tmpfs_options(text))
        point = _of_tmpfs(parse_destination(path), memory, f"{_HOST_FIELD}.tmpfs[{json.dumps(path)}]")
        yield _Asked(point=point, labels={}, driver=VolumeDriver())


def _of_bind(text: str, field: str) -> MountPoint:
    bind = parse_bind(text)
    if not bind.source:
        return _anonymous(bind.destination, field=field)
    return MountPoint(
        type=MountType.VOLUME if bind.is_volume else MountType.BIND,
        source=bind.source,
        destination=bind.destination,
        mode=bind.mode,
        read_only=bind.read_only,
        propagation=bind.propagation,
        populate=bind.is_volume and not bind.no_copy,
        field=field,
    )


def _of_mount(mount: Mount, field: str) -> MountPoint:
    destination = parse_destination(mount.target)
    match MountType(mount.type):
        case MountType.BIND:
            bind = mount.bind_options or BindOptions()
            return MountPoint(
                type=MountType.BIND,
                source=parse_host_path(mount.source),
                destination=destination,
                read_only=mount.read_only,
                read_only_non_recursive=bind.read_only_non_recursive,
                read_only_force_recursive=bind.read_only_force_recursive,
                propagation=bind.propagation or DEFAULT_PROPAGATION,
                non_recursive=bind.non_recursive,
                create_source=bind.create_mountpoint,
                field=field,
            )
        case MountType.VOLUME:
            options = mount.volume_options or VolumeOptions()
            named = _anonymous(destination, field=field)
            if mount.source:
                named = replace(named, source=mount.source, anonymous=False)
            subpath = parse_subpath(options.subpath) if options.subpath else ""
            return replace(named, read_only=mount.read_only, populate=not (options.no_copy or subpath), subpath=subpath)
        case MountType.TMPFS:
            tmpfs = mount.tmpfs_options or TmpfsOptions()
            given = [*(["ro"] if mount.read_only else []), *tmpfs.options]
            given += [f"size={tmpfs.size_bytes}"] if tmpfs.size_bytes else []
            given += [f"mode={tmpfs.mode:o}"] if tmpfs.mode else []
            return _of_tmpfs(destination, tmpfs_options(given), field)
        case MountType.IMAGE:
            subpath = (mount.image_options or ImageOptions()).subpath
            return MountPoint(
                type=MountType.IMAGE,
                source=mount.source,
                destination=destination,
                read_only=True,
                subpath=parse_subpath(subpath) if subpath else "",
                field=field,
            )


def _of_tmpfs(destination: str, options: tuple[str, ...], field: str) -> MountPoint:
    return MountPoint(
        type=MountType.TMPFS,
        source="",
        destination=destination,
        read_only="ro" in options,
        options=options,
        field=field,
    )


def _anonymous(destination: str, *, field: str) -> MountPoint:
    return MountPoint(
        type=MountType.VOLUME,
        source=secrets.token_hex(32),
        destination=destination,
        populate=True,
        anonymous=True,
        field=field,
    )
