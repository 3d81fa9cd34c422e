"""`host_config.mounts`: the rules of each type, and destinations that several mounts want."""

from __future__ import annotations

import json
from collections.abc import Iterator

from api_service.records.config import HostConfig
from api_service.records.mount import BindOptions, Mount, MountType, TmpfsOptions, VolumeOptions
from api_service.validation.binds import DEFAULT_PROPAGATION, PROPAGATIONS, parse_bind
from api_service.validation.host_facts import HostFacts
from api_service.validation.mount_paths import parse_destination, parse_host_path, parse_subpath
from api_service.validation.references import validate_image
from api_service.validation.tmpfs import tmpfs_option_faults
from api_service.validation.volumes import parse_volume_name, validate_driver
from common.errors import Violation

MAX_MOUNTS = 1000
_TYPES = tuple(kind.value for kind in MountType)
_OWN_OPTIONS = {kind.value: f"{kind.value}_options" for kind in MountType}
_MAX_MODE = 0o7777


def validate_mounts(host_config: HostConfig, facts: HostFacts, field: str) -> list[Violation]:
    """`host_config.mounts`, each on its own. `field` is the host configuration's."""
    violations: list[Violation] = []
    for index, mount in enumerate(host_config.mounts):
        violations += _validate_mount(mount, facts, f"{field}.mounts[{index}]")
    return violations


def validate_destinations(host_config: HostConfig, field: str) -> list[Violation]:
    """No two of binds, mounts and tmpfs may want the same place."""
    violations: list[Violation] = []
    first: dict[str, str] = {}
    for name, destination in _destinations(host_config, field):
        if destination in first:
            why = f"duplicate mount point: {destination!r} is that of {first[destination]} as well; keep one of them"
            violations.append(Violation(field=name, description=why))
        first.setdefault(destination, name)
    if (count := len(host_config.binds) + len(host_config.mounts) + len(host_config.tmpfs)) > MAX_MOUNTS:
        why = f"with binds and tmpfs it makes {count} mounts; a container can have {MAX_MOUNTS}"
        violations.append(Violation(field=f"{field}.mounts", description=why))
    return violations


def _destinations(host_config: HostConfig, field: str) -> Iterator[tuple[str, str]]:
    """Field and cleaned destination of those that have a valid one."""
    places = [
        *((f"{field}.binds[{index}]", text, True) for index, text in enumerate(host_config.binds)),
        *((f"{field}.mounts[{index}].target", mount.target, False) for index, mount in enumerate(host_config.mounts)),
        *((f"{field}.tmpfs[{json.dumps(path)}]", path, False) for path in host_config.tmpfs),
    ]
    for name, text, is_bind in places:
        try:
            yield name, parse_bind(text).destination if is_bind else parse_destination(text)
        except ValueError:
            continue


def _validate_mount(mount: Mount, facts: HostFacts, field: str) -> list[Violation]:
    if mount.type not in _TYPES:
        why = f"{mount.type[:64]!r} is no type of a mount; there are {', '.join(_TYPES)}"
        return [Violation(field=f"{field}.type", description=why)]
    return [Violation(field=f"{field}.{name}", description=why) for name, why in _rules(mount, facts)] + (
        validate_driver(mount.volume_options.driver_config, f"{field}.volume_options.driver_config")
        if mount.type == MountType.VOLUME and mount.volume_options is not None
        else []
    )


def _rules(mount: Mount, facts: HostFacts) -> Iterator[tuple[str, str]]:
    """(field, sentence) of every broken rule."""
    try:
        parse_destination(mount.target)
    except ValueError as error:
        yield "target", str(error)
    yield from _source_rules(mount)
    for kind, name in _OWN_OPTIONS.items():
        if kind != mount.type and getattr(mount, name) is not None:
            yield name, f"is for mounts of type '{kind}', and this is one of type '{mount.type}'; remove it"
    match mount.type:
        case MountType.BIND:
            yield from _bind_rules(mount.bind_options or BindOptions(), mount, facts)
        case MountType.VOLUME:
            options = mount.volume_options or VolumeOptions()
            yield from _subpath_rules(options.subpath, "volume_options.subpath")
            if options.subpath and not mount.source:
                yield "volume_options.subpath", "a new anonymous volume has nothing in it; name a volume in source"
        case MountType.TMPFS:
            yield from _tmpfs_rules(mount.tmpfs_options or TmpfsOptions())
        case MountType.IMAGE if mount.image_options is not None:
            yield from _subpath_rules(mount.image_options.subpath, "image_options.subpath")


def _source_rules(mount: Mount) -> Iterator[tuple[str, str]]:
    try:
        match mount.type:
            case MountType.BIND:
                parse_host_path(mount.source)
            case MountType.VOLUME if mount.source:
                parse_volume_name(mount.source)
            case MountType.TMPFS if mount.source:
                yield "source", "must be empty: a tmpfs is made of memory"
            case MountType.IMAGE:
                yield from (("source", broken.description) for broken in validate_image(mount.source, "source"))
    except ValueError as error:
        yield "source", str(error)


def _bind_rules(options: BindOptions, mount: Mount, facts: HostFacts) -> Iterator[tuple[str, str]]:
    if options.propagation and options.propagation not in PROPAGATIONS:
        what = f"{options.propagation[:64]!r} is no propagation; there are {', '.join(PROPAGATIONS)}"
        yield "bind_options.propagation", what
    for name in ("read_only_non_recursive", "read_only_force_recursive"):
        if getattr(options, name) and not mount.read_only:
            yield f"bind_options.{name}", "needs read_only; set that too, or remove this"
    if options.read_only_force_recursive:
        yield from _force_rules(options, facts)


def _force_rules(options: BindOptions, facts: HostFacts) -> Iterator[tuple[str, str]]:
    name = "bind_options.read_only_force_recursive"
    if options.read_only_non_recursive:
        yield name, "contradicts read_only_non_recursive; keep one of them"
    if options.propagation not in ("", DEFAULT_PROPAGATION):
        yield name, f"needs the propagation '{DEFAULT_PROPAGATION}': what is mounted later would be writable"
    if not facts.recursive_read_only:
        yield name, "the node's kernel cannot do it, that takes Linux 5.12; remove it, and mounts below stay writable"


def _tmpfs_rules(options: TmpfsOptions) -> Iterator[tuple[str, str]]:
    if options.size_bytes < 0:
        yield "tmpfs_options.size_bytes", f"{options.size_bytes} is negative; give bytes, 0 means half of the memory"
    if options.mode > _MAX_MODE:
        yield "tmpfs_options.mode", f"{options.mode:o} (octal) is more than {_MAX_MODE:o}, all permissions there are"
    for index, why in tmpfs_option_faults(options.options):
        yield "tmpfs_options.options" if index is None else f"tmpfs_options.options[{index}]", why


def _subpath_rules(subpath: str, name: str) -> Iterator[tuple[str, str]]:
    if subpath:
        try:
            parse_subpath(subpath)
        except ValueError as error:
            yield name, str(error)
