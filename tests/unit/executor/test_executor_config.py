from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from common.errors import FailedPrecondition, InvalidArgument
from common.settings import load_settings
from executor_service.config import ResetSettings, Settings, instance_defaults
from executor_service.instance_lock import instance_lock
from executor_service.paths import Paths


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("SLIPWAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(Settings, "default_file", tmp_path / "executor.toml")


def test_the_default_instance() -> None:
    settings = load_settings(Settings, [])
    assert settings.paths.socket == Path("/run/slipway/executor.sock")
    assert settings.paths.database == Path("/var/lib/slipway/state.db")
    assert (settings.bridge, settings.nft_table, settings.cgroup_parent) == ("slipway0", "slipway", "/slipway")
    assert settings.bridge_config.ipv4_subnet == IPv4Network("10.210.0.0/16")


def test_another_instance_shares_nothing() -> None:
    default, other = instance_defaults("default"), instance_defaults("t-1")
    assert [name for name in default if default[name] == other[name]] == ["socket_gid"]
    longest = load_settings(Settings, ["--instance", "a123456789"])
    assert len(longest.bridge_config.bridge) <= 15


def test_flags_beat_the_environment_and_that_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "executor.toml").write_text('bridge = "file0"\nmtu = 1400\ncgroup_parent = "/file"\n')
    monkeypatch.setenv("SLIPWAY_EXECUTOR_MTU", "1300")
    monkeypatch.setenv("SLIPWAY_EXECUTOR_BRIDGE", "env0")
    settings = load_settings(Settings, ["--bridge", "flag0"])
    assert (settings.bridge, settings.mtu, settings.cgroup_parent) == ("flag0", 1300, "/file")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--instance", "Default"], "instance"),
        (["--instance", "a1234567890"], "instance"),
        (["--root-dir", "relative"], "root_dir"),
        (["--root-dir", "/x", "--run-dir", "/x"], "must differ"),
        (["--listen", '["0.0.0.0:50052"]'], "only with TLS; give tls_cert, tls_key and tls_ca"),
        (["--listen", "127.0.0.1:50052"], "only with TLS"),
        (["--listen", "unix://relative"], "unix:///absolute/path"),
        (["--tls-cert", "/x/tls.crt"], "belong together"),
        (["--cgroup-parent", "/a/../b"], "cgroup_parent"),
        (["--journal-retention", "1"], "journal_retention"),
        (["--ipv4-subnet", "10.0.0.1/16"], "ipv4_subnet"),
        (["--own-cgroup", "/slipway/own"], "own_cgroup"),
        (["--own-cgroup", "/a", "--cgroup-parent", "/a/b"], "own_cgroup"),
        (["--own-cgroup", "own"], "own_cgroup"),
        (["--config", "/nowhere.toml"], "no such file"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        load_settings(Settings, arguments)


def test_unknown_keys_and_flags_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "executor.toml").write_text('brige = "x"\n')
    with pytest.raises(InvalidArgument, match="brige"):
        load_settings(Settings, [])
    with pytest.raises(SystemExit):
        load_settings(Settings, ["--brige", "x"])
    assert "--brige" in capsys.readouterr().err


def test_reset_takes_a_plain_flag() -> None:
    assert load_settings(ResetSettings, ["--images"]).images
    assert not load_settings(ResetSettings, []).images


def test_help_shows_the_defaults_of_the_default_instance(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_settings(Settings, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "images, layers, records, logs (default: /var/lib/slipway)" in shown
    assert "(default: slipway0)" in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_a_run_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    paths = Paths(root=tmp_path / "root", run=tmp_path / "run")
    with instance_lock(paths):
        pass
    os.chown(paths.run, 12345, -1)
    with pytest.raises(FailedPrecondition, match="belongs to user 12345"), instance_lock(paths):
        pass
