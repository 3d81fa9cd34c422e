"""The runtime's file cannot be written through what runs from it, and is followed when a package replaces it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from executor_service.oci.runtimes import RuntimeCatalog
from executor_service.oci.sealed_runtimes import seal_runtimes, unseal_runtimes
from tests.fixtures.oci import UNAVAILABLE

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)


def _mounted_below(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory}/" in line]


def test_crun_is_read_only_and_runc_where_it_was(tmp_path: Path) -> None:
    catalog = RuntimeCatalog.probe(default="crun")
    sealed = seal_runtimes(catalog, tmp_path)
    place = sealed.resolve("crun").path
    assert place.samefile(catalog.resolve("crun").path)
    with pytest.raises(OSError, match="Read-only file system"):
        os.open(place, os.O_WRONLY)
    assert sealed.resolve("runc") == catalog.resolve("runc")
    assert seal_runtimes(catalog, tmp_path) == sealed
    assert len(_mounted_below(tmp_path)) == 1
    unseal_runtimes(tmp_path)
    unseal_runtimes(tmp_path)
    assert _mounted_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_an_upgraded_crun_takes_the_old_ones_place(tmp_path: Path) -> None:
    program, places = tmp_path / "crun", tmp_path / "programs"
    shutil.copy("/usr/bin/crun", program)
    catalog = RuntimeCatalog.probe(configured={"crun": str(program)}, default="crun")
    before = seal_runtimes(catalog, places).resolve("crun").path.stat().st_ino
    shutil.copy("/usr/bin/crun", tmp_path / "new")
    (tmp_path / "new").rename(program)
    after = seal_runtimes(catalog, places).resolve("crun").path.stat().st_ino
    assert before != after == program.stat().st_ino
    assert len(_mounted_below(places)) == 1
    unseal_runtimes(places)
