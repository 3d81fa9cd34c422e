from __future__ import annotations

import errno
import shutil

import pytest

from common.errors import ResourceExhausted, Unavailable
from executor_service import host_check
from executor_service.host_check import Check, check_host, refuses, table, warnings
from executor_service.host_errors import host_error, host_errors

_GOOD = Check(name="a", ok=True, found="here", remedy="nothing")
_LACK = Check(name="seccomp", ok=False, found="not there", remedy="use another kernel", essential=False)
_MISSING = Check(name="conmon", ok=False, found="not found", remedy="apt install conmon")


def test_only_what_is_essential_refuses_the_start() -> None:
    assert not refuses([_GOOD, _LACK])
    assert refuses([_GOOD, _LACK, _MISSING])
    assert warnings([_GOOD, _LACK, _MISSING]) == ["seccomp: not there; use another kernel"]


def test_the_table_gives_the_way_out() -> None:
    lines = table([_GOOD, _MISSING]).splitlines()
    assert lines[0].split() == ["a", "ok", "here"]
    assert lines[1].split() == ["conmon", "MISSING", "not", "found"]
    assert lines[2].strip() == "→ apt install conmon"


def test_a_program_that_is_not_there_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    rows = {row.name: row for row in check_host()}
    assert not rows["conmon"].ok
    assert rows["conmon"].remedy == "apt install conmon"
    assert not rows["OCI runtime"].ok
    assert refuses(rows.values())


def test_a_capability_that_is_not_held_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_check, "_CAPABILITIES", {"NONE_SUCH": 63})
    row = next(row for row in check_host() if row.name == "privileges")
    assert not row.ok
    assert "CAP_NONE_SUCH" in row.found


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, ResourceExhausted),
        (errno.EMFILE, ResourceExhausted),
        (errno.ENOMEM, ResourceExhausted),
        (errno.EROFS, Unavailable),
        (errno.EIO, Unavailable),
    ],
)
def test_shortages_have_a_class_and_a_way_out(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"container 'x': .*; "), host_errors("container 'x'"):
        raise OSError(number, "short", "/some/file")


def test_other_errors_pass() -> None:
    assert host_error(FileNotFoundError(errno.ENOENT, "gone"), "x") is None
    with pytest.raises(PermissionError), host_errors("x"):
        raise PermissionError(errno.EPERM, "no")
