"""OCI runtimes on a read-only mount of their own, where nothing a container does can overwrite them (CVE-2019-5736).

crun sees to that by itself: each time it runs it mounts its own file read-only and starts over from there, which takes
3 ms. A file that is read-only already is taken as it is. Source: crun, src/libcrun/cloned_binary.c
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import structlog

from executor_service.kernel import MNT_DETACH, mount, unmount
from executor_service.oci.runtimes import RuntimeBinary, RuntimeCatalog, RuntimeKind

_log = structlog.get_logger(__name__)

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_PRIVATE = 0x1, 0x20, 0x1000, 1 << 18


def seal_runtimes(catalog: RuntimeCatalog, directory: Path) -> RuntimeCatalog:
    """The catalog with every crun at its read-only place in `directory`. Idempotent; blocks briefly. A crun that cannot
    be mounted stays where it is, and protects itself."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    sealed = {name: _sealed(binary, directory / name) for name, binary in catalog.runtimes.items()}
    return dataclasses.replace(catalog, runtimes=sealed)


def unseal_runtimes(directory: Path) -> None:
    """Unmount and forget them. Nothing there: nothing happens."""
    for place in directory.iterdir() if directory.is_dir() else ():
        while _is_mounted(place):
            unmount(os.fsencode(place), flags=MNT_DETACH)
        place.unlink()


def _sealed(binary: RuntimeBinary, place: Path) -> RuntimeBinary:
    if binary.kind is not RuntimeKind.CRUN:
        return binary
    try:
        _seal(binary.path, place)
    except OSError as error:
        _log.warning("runtime not sealed", runtime=binary.name, error=str(error))
        return binary
    return dataclasses.replace(binary, path=place)


def _seal(program: Path, place: Path) -> None:
    if not place.exists():
        place.touch(mode=0o700)
    if place.samefile(program) and os.statvfs(place).f_flag & os.ST_RDONLY:
        return
    while _is_mounted(place):
        # A package was upgraded, or an executor was killed in between; what still runs from there keeps its file.
        unmount(os.fsencode(place), flags=MNT_DETACH)
    source, target = os.fsencode(program), os.fsencode(place)
    mount(source=source, target=target, filesystem=b"", data=b"", flags=_MS_BIND)
    mount(source=b"", target=target, filesystem=b"", data=b"", flags=_MS_PRIVATE)
    mount(source=b"", target=target, filesystem=b"", data=b"", flags=_MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def _is_mounted(place: Path) -> bool:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ", 5)[4] == str(place) for line in lines)
