"""Settings: who wins, what follows the instance, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_service.config import Settings
from common.errors import InvalidArgument
from common.settings import TlsFiles, load_settings


@pytest.fixture(autouse=True)
def _no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Settings, "default_file", tmp_path / "absent.toml")


def test_defaults() -> None:
    settings = load_settings(Settings, [])
    assert settings.listen == ["127.0.0.1:50051", "unix:///run/slipway/api.sock"]
    assert settings.state_dir == Path("/var/lib/slipway/api")
    assert settings.executor == "unix:///run/slipway/executor.sock"


def test_everything_follows_the_instance() -> None:
    settings = load_settings(Settings, ["--instance", "demo"])
    assert settings.listen == ["unix:///run/slipway-demo/api.sock"]
    assert settings.state_dir == Path("/var/lib/slipway-demo/api")
    assert settings.executor == "unix:///run/slipway-demo/executor.sock"


def test_flag_then_environment_then_file_then_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "api.toml"
    file.write_text('log_level = "error"\nnode = "n1"\ninstance = "abc"\nlisten = ["127.0.0.1:1"]\n')
    monkeypatch.setenv("SLIPWAY_API_LISTEN", '["127.0.0.1:2"]')
    monkeypatch.setenv("SLIPWAY_API_NODE", "n2")
    settings = load_settings(Settings, ["--config", str(file), "--listen", "127.0.0.1:3"])
    assert (settings.log_level, settings.node, settings.listen) == ("error", "n2", ["127.0.0.1:3"])
    assert settings.state_dir == Path("/var/lib/slipway-abc/api")
    monkeypatch.setenv("SLIPWAY_API_CONFIG", str(file))
    assert load_settings(Settings, []).listen == ["127.0.0.1:2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--instance", "Default"], "instance"),
        (["--instance", "a" * 11], "instance"),
        (["--instance", "-a"], "instance"),
        (["--listen", "unix://relative"], "unix:///absolute/path"),
        (["--listen", "localhost"], "host:port"),
        (["--grace", "-1"], "grace"),
        (["--log-level", "loud"], "log_level"),
        (["--config", "/nowhere/api.toml"], "no such file"),
        (["--listen", "127.0.0.1:65536"], "host:port"),
        (["--listen", "::1:50051"], "host:port"),
        (["--listen", "0.0.0.0:50051"], "needs tls_cert, tls_key and tls_ca; --insecure-listen does without"),
        (["--listen", '["[::]:50051"]'], "needs tls_cert"),
        (["--listen", "[::]:50051"], "write a list as JSON"),
        (["--listen", "api.example.com:50051"], "needs tls_cert"),
        (["--executor", "192.0.2.1:50052"], "executors are dialled with TLS"),
        (["--executor", "127.0.0.1:50052", "--insecure-listen"], "executors are dialled with TLS"),
        (["--tls-cert", "/x/tls.crt"], "belong together"),
        (["--tls-key", "/x/tls.key", "--tls-ca", "/x/ca.crt"], "belong together"),
    ],
)
def test_what_is_refused(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        load_settings(Settings, arguments)
    except InvalidArgument as error:
        assert says in error.message
    except SystemExit:
        assert says in capsys.readouterr().err
    else:
        raise AssertionError("accepted")


def test_unknown_flags_and_keys_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        load_settings(Settings, ["--colour", "red"])
    file = tmp_path / "api.toml"
    file.write_text('colour = "red"\n')
    with pytest.raises(InvalidArgument, match="colour"):
        load_settings(Settings, ["--config", str(file)])


def test_addresses_that_other_machines_reach() -> None:
    tls = ["--tls-cert", "/x/tls.crt", "--tls-key", "/x/tls.key", "--tls-ca", "/x/ca.crt"]
    settings = load_settings(Settings, ["--listen", "0.0.0.0:1", "--executor", "n1:2", *tls])
    assert settings.tls == TlsFiles(
        certificate=Path("/x/tls.crt"), key=Path("/x/tls.key"), authorities=Path("/x/ca.crt")
    )
    assert load_settings(Settings, ["--listen", "0.0.0.0:1", "--insecure-listen"]).tls is None


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:///x"])
def test_addresses_that_only_this_machine_reaches(address: str) -> None:
    assert load_settings(Settings, ["--listen", f'["{address}"]']).listen == [address]
