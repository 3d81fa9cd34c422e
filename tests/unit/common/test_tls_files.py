"""The three files: what is refused at start, and what a change does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common import tls
from common.errors import InvalidArgument
from common.identity import Role
from common.settings import TlsFiles
from common.tls import TlsSource, read_tls
from tests.fixtures.certificates import Authority, replace


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> TlsFiles:
    return authority.files(authority.certify(Role.API), directory="api")


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_LOOK_EVERY", 0.0)


def test_good_files(files: TlsFiles) -> None:
    material = read_tls(files)
    assert str(material.identity) == "n1 (api)"
    assert len(material.authorities) == 1


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("file", "spoil", "says"),
    [
        ("certificate", _truncated, "tls.crt holds no whole certificate in PEM"),
        ("certificate", _empty, "tls.crt holds no whole certificate"),
        ("certificate", Path.unlink, "cannot read .*tls.crt: No such file"),
        ("authorities", _truncated, "ca.crt holds no whole certificate"),
        ("authorities", Path.unlink, "cannot read .*ca.crt"),
        ("key", _truncated, "tls.key is no private key in PEM without a password"),
        ("key", Path.unlink, "cannot read .*tls.key"),
        ("key", lambda path: path.chmod(0o644), r"everybody may use .*tls.key \(mode 0644\); chmod 0600 it, and renew"),
        ("key", lambda path: path.chmod(0o602), r"everybody may use .*tls.key \(mode 0602\)"),
    ],
)
def test_what_is_refused(files: TlsFiles, file: str, spoil: Callable[[Path], None], says: str) -> None:
    spoil(getattr(files, file))
    with pytest.raises(InvalidArgument, match=says):
        TlsSource(files)


def test_the_key_of_another_certificate(authority: Authority, files: TlsFiles) -> None:
    replace(files.key, authority.certify(Role.API).key_pem, mode=0o600)
    with pytest.raises(InvalidArgument, match=r"tls\.key is not the key of the certificate"):
        TlsSource(files)


def test_a_key_that_the_services_group_may_read(files: TlsFiles) -> None:
    files.key.chmod(0o640)
    TlsSource(files)


def test_an_expired_certificate_is_told_and_does_not_keep_from_starting(authority: Authority) -> None:
    expired = authority.certify(Role.API, valid=timedelta(hours=1), begins=timedelta(hours=-2))
    with capture_logs() as logs:
        TlsSource(authority.files(expired, directory="api"))
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("error", "own certificate has expired; renew it")
    ]


def test_files_in_the_middle_of_being_replaced_leave_the_old_ones_in_use(authority: Authority, files: TlsFiles) -> None:
    source = TlsSource(files)
    before = source.current()
    assert source.current() is before
    new = authority.certify(Role.API)
    replace(files.key, new.key_pem, mode=0o600)
    with capture_logs() as logs:
        assert source.current() is before
        assert source.current() is before
    assert [entry["event"] for entry in logs] == ["TLS files not taken, those read before stay in use"]  # said once
    replace(files.certificate, new.certificate_pem)
    assert source.current().certificate == new.certificate


def test_a_file_written_in_place_in_two_steps(authority: Authority, files: TlsFiles) -> None:
    source = TlsSource(files)
    before = source.current()
    content = files.authorities.read_bytes()
    files.authorities.write_bytes(content[:100])
    assert source.current() is before
    files.authorities.write_bytes(content)
    assert source.current() is not before
    assert source.current().authorities == before.authorities


def test_files_are_not_looked_at_with_every_call(
    authority: Authority, files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LOOK_EVERY", 3600.0)
    source = TlsSource(files)
    before = source.current()
    authority.files(authority.certify(Role.API), directory="api")
    assert source.current() is before
