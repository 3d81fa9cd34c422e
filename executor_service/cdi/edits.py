"""A container with the CDI devices it asks for: what their specifications say becomes part of its own, and is held to
the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.cdi.files import CdiDevices, FoundDevice, find_cdi_devices
from executor_service.cdi.specification import CdiDeviceNode, CdiEdits, CdiHook, CdiMount
from executor_service.container import ContainerSpec, Device, DeviceNode, Hook
from executor_service.mounts import BIND_FLAGS, PROPAGATIONS, Mount, MountType

REQUESTS = "host_config.device_requests"  # the field of the public API

_SHOWN = 20  # devices and files named in one sentence
_NO_FLAGS = frozenset({"rw", "rbind", "suid", "dev", "exec"})


def with_cdi_devices(spec: ContainerSpec, directories: Sequence[Path]) -> ContainerSpec:
    """Looked up in the files as they are now. Blocks. Raises InvalidArgument for a device that is not there, and for
    what cannot be had."""
    found = find_cdi_devices(directories)
    unknown = [name for name in spec.cdi_devices if name not in found.devices]
    if unknown:
        why = _what_there_is(found, directories)
        raise InvalidArgument(
            violations=[
                Violation(field=REQUESTS, description=f"the node has no CDI device {name[:300]!a}; {why}")
                for name in unknown
            ]
        )
    seen: set[Path] = set()
    for device in (found.devices[name] for name in spec.cdi_devices):
        try:
            if device.file not in seen:
                spec = _edited(spec, device.specification.container_edits)
            spec = _edited(spec, device.device.container_edits)
        except ValueError as error:
            raise InvalidArgument(
                violations=[Violation(field=REQUESTS, description=_unusable(device, error))]
            ) from error
        seen.add(device.file)
    return spec


def _unusable(device: FoundDevice, error: ValueError) -> str:
    return f"the CDI specification {device.file} cannot be used: {error}"


def _what_there_is(found: CdiDevices, directories: Sequence[Path]) -> str:
    places = ", ".join(map(str, directories))
    names = sorted(found.devices)
    there = f"there are {', '.join(names[:_SHOWN])}" if names else f"there is none in {places}"
    if len(names) > _SHOWN:
        there += f" and {len(names) - _SHOWN} more"
    broken = [f"{what} cannot be used: {why}" for what, why in list(found.broken.items())[:_SHOWN]]
    return "; ".join([there, *broken])


def _edited(spec: ContainerSpec, edits: CdiEdits) -> ContainerSpec:
    """Variables replace the container's own of that name, as the OCI's generator has it. Group 0 is no addition."""
    keys = {entry.partition("=")[0] for entry in edits.env}
    return replace(
        spec,
        env=(*(entry for entry in spec.env if entry.partition("=")[0] not in keys), *edits.env),
        devices=(*spec.devices, *map(_device, edits.device_nodes)),
        mounts=tuple(dict.fromkeys((*spec.mounts, *map(_mount, edits.mounts)))),
        group_add=(*spec.group_add, *(str(number) for number in edits.additional_gids if number)),
        hooks=(*spec.hooks, *map(_hook, edits.hooks)),
    )


def _device(node: CdiDeviceNode) -> Device:
    return Device(
        source=node.host_path or node.path,
        target=node.path,
        permissions=node.permissions or "rwm",
        node=DeviceNode(
            type={"u": "c"}.get(node.type, node.type),
            major=node.major,
            minor=node.minor,
            mode=node.file_mode,
            uid=node.uid,
            gid=node.gid,
        ),
    )


def _mount(mount: CdiMount) -> Mount:
    options = frozenset(mount.options)
    propagations = options & PROPAGATIONS
    if unknown := options - propagations - BIND_FLAGS - _NO_FLAGS - {"ro", "bind"}:
        raise ValueError(f"a mount at {mount.container_path} has the option {min(unknown)[:60]!a}")
    if len(propagations) > 1:
        raise ValueError(f"a mount at {mount.container_path} has two kinds of propagation")
    return Mount(
        type=MountType.BIND,
        source=mount.host_path,
        target=mount.container_path,
        read_only="ro" in options,
        non_recursive="bind" in options and "rbind" not in options,
        propagation=next(iter(propagations), ""),
        options=tuple(sorted(options & BIND_FLAGS)),
    )


def _hook(hook: CdiHook) -> Hook:
    return Hook(name=hook.hook_name, path=hook.path, args=hook.args, env=hook.env, timeout=hook.timeout)
