"""Puts limits into the files of one cgroup: all of them, or what was there before. Blocks."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from common.errors import FailedPrecondition
from executor_service.limits import Resources
from executor_service.oci.block_devices import BlockDevices
from executor_service.oci.cgroup_limits import (
    PARENT,
    V1_DEVICE_FILES,
    V2_DEVICE_FILES,
    Setting,
    changes,
    lines,
    undo_of,
    v1_settings,
    v2_settings,
)
from executor_service.oci.cgroups import CgroupTree

_log = structlog.get_logger(__name__)

_MEMORY_FILES = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max")
_OTHER_NAMES: Mapping[str, Sequence[str]] = {
    # Kernels before 5.0 had CFQ's instead of BFQ's.
    "blkio.bfq.weight": ("blkio.bfq.weight", "blkio.weight"),
    "blkio.bfq.weight_device": ("blkio.bfq.weight_device", "blkio.weight_device"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupWriter:
    tree: CgroupTree
    cgroups_path: str
    container_id: str

    def apply(self, resources: Resources, devices: BlockDevices) -> None:
        """Raises FailedPrecondition with reason `LIMIT_REFUSED`; nothing has changed then."""
        build = v2_settings if self.tree.is_v2 else v1_settings
        settings = [self._resolved(setting) for setting in build(resources, devices)]
        current = self._current(settings)
        present = [setting for setting in settings if self._applies(setting, current)]
        undo: list[Setting] = []
        for setting in changes(present, current):
            try:
                self._write(setting)
            except OSError as error:
                self._take_back(undo)
                raise self._refused(setting, error) from error
            undo.append(undo_of(setting, current))

    def _applies(self, setting: Setting, current: Mapping[tuple[str, str], str]) -> bool:
        """False for a default that needs no file. Raises FailedPrecondition for a limit without one."""
        known = bool(setting.device) or (setting.file, "") in current
        if known or setting.default:
            return known
        raise FailedPrecondition(
            f"container {self.container_id!r}: this node's kernel has no {setting.file}, which the limit needs; leave "
            f"it out, or boot with the controller {setting.controller!r}",
            reason="LIMIT_REFUSED",
        )

    def _resolved(self, setting: Setting) -> Setting:
        """With the name this kernel has for the file, and the parent's value where that is meant."""
        directory = self._directory(setting)
        if directory is None:
            return setting
        names = _OTHER_NAMES.get(setting.file, (setting.file,))
        file = next((name for name in names if (directory / name).exists()), setting.file)
        value = setting.value
        if value == PARENT:
            above = directory.parent / file
            value = above.read_text().strip() if above.exists() else ""
        return replace(setting, file=file, value=value)

    def _current(self, settings: Sequence[Setting]) -> dict[tuple[str, str], str]:
        """Contents by (file, device)."""
        found: dict[tuple[str, str], str] = {}
        for setting in settings:
            if not setting.device and (text := self._read(setting)) is not None:
                found[setting.file, ""] = text.splitlines()[0] if text else ""
        controller, files = ("io", V2_DEVICE_FILES) if self.tree.is_v2 else ("blkio", V1_DEVICE_FILES)
        for file in files:
            text = self._read(Setting(controller=controller, file=file, value="")) or ""
            found.update({(file, device): value for device, value in lines(text).items()})
        return found

    def _write(self, setting: Setting) -> None:
        path = self._path(setting)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, "the controller is not mounted", setting.controller)
        if setting.file == "memory.max" and setting.value != "max":
            self._check_use(int(setting.value))
        path.write_text(setting.text + "\n")

    def _check_use(self, limit: int) -> None:
        """v1 refuses a limit below what is used; v2 would kill."""
        directory = self.tree.directory("memory", self.cgroups_path)
        assert directory is not None
        stat = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
        droppable = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
        if int((directory / "memory.current").read_text()) - droppable > limit:
            raise OSError(errno.EBUSY, "more is used")

    def _take_back(self, undo: Sequence[Setting]) -> None:
        for setting in reversed(undo):
            path = self._path(setting)
            try:
                if path is not None:
                    path.write_text(setting.text + "\n")
            except OSError as error:
                _log.error(
                    "a limit cannot be restored", container=self.container_id, file=setting.file, error=str(error)
                )

    def _refused(self, setting: Setting, error: OSError) -> FailedPrecondition:
        if error.errno == errno.EBUSY and setting.file in _MEMORY_FILES:
            why = f"it uses more than {setting.value} bytes of memory, and the kernel cannot take that back; allow more"
        else:
            why = f"the kernel refuses {setting.text!r} for {setting.file}: {error.strerror}"
        return FailedPrecondition(
            f"container {self.container_id!r}: {why}; its limits are what they were",
            resource_type="container",
            resource_name=self.container_id,
            reason="LIMIT_REFUSED",
        )

    def _read(self, setting: Setting) -> str | None:
        path = self._path(setting)
        try:
            return None if path is None else path.read_text().strip()
        except FileNotFoundError:
            return None

    def _path(self, setting: Setting) -> Path | None:
        directory = self._directory(setting)
        return None if directory is None else directory / setting.file

    def _directory(self, setting: Setting) -> Path | None:
        return self.tree.directory(setting.controller, self.cgroups_path)
