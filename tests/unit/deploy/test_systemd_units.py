"""The units: systemd understands them, and stopping the executor's takes no container along."""

from __future__ import annotations

import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[3] / "deploy/systemd").glob("*.service"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_it(unit: Path, tmp_path: Path) -> None:
    """With this interpreter in the place of the installed one; a word it does not know is a warning, which counts."""
    text = unit.read_text()
    assert "ExecStart=/opt/slipway/bin/python -m " in text
    (tmp_path / unit.name).write_text(text.replace("/opt/slipway/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / unit.name],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_executors_monitors_and_containers_stay() -> None:
    unit = RawConfigParser(strict=False)
    unit.read(next(unit for unit in UNITS if unit.stem == "slipway-executor"))
    service = unit["Service"]
    assert (service["KillMode"], service["OOMPolicy"], service["Delegate"]) == ("process", "continue", "yes")
