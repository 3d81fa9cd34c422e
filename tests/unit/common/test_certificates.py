"""The command that makes certificates: what it writes, with which rights, and what it refuses."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from common.certificate_authority import hosts_in
from common.certificates import main
from common.settings import TlsFiles
from common.tls import certified_identity, read_tls


def _files(directory: Path) -> TlsFiles:
    return TlsFiles(certificate=directory / "tls.crt", key=directory / "tls.key", authorities=directory / "ca.crt")


@pytest.fixture
def ca(tmp_path: Path) -> str:
    assert main(["init", "--authority", str(tmp_path / "ca")]) == 0
    return str(tmp_path / "ca")


def _issue(ca: str, out: Path, *more: str, role: str = "api", name: str = "n1") -> int:
    return main(["issue", "--authority", ca, "--role", role, "--name", name, "--out", str(out), *more])


def _certificate(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes())


def test_what_is_issued_is_what_services_take(ca: str, tmp_path: Path) -> None:
    assert _issue(ca, tmp_path / "api", "--host", "api.example.com", "--host", "192.0.2.1", "--host", "::1") == 0
    material = read_tls(_files(tmp_path / "api"))
    assert str(material.identity) == "n1 (api)"
    assert hosts_in(material.certificate) == ["api.example.com", "192.0.2.1", "::1"]
    verification.PolicyBuilder().store(verification.Store(list(material.authorities))).build_server_verifier(
        x509.DNSName("api.example.com")
    ).verify(material.certificate, [])


def test_keys_are_their_owners_alone(ca: str, tmp_path: Path) -> None:
    _issue(ca, tmp_path / "api")
    for path in (Path(ca) / "ca.key", tmp_path / "api/tls.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for directory in (Path(ca), tmp_path / "api"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("role", "serves", "dials"),
    [
        ("reader", False, True),
        ("operator", False, True),
        ("admin", False, True),
        ("api", True, True),
        ("executor", True, False),
        ("etcd", True, True),
    ],
)
def test_certificates_are_good_for_what_the_role_does(
    ca: str, tmp_path: Path, role: str, serves: bool, dials: bool
) -> None:
    _issue(ca, tmp_path / "x", role=role)
    usage = _certificate(tmp_path / "x").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) is serves
    assert (ExtendedKeyUsageOID.CLIENT_AUTH in usage) is dials


def test_nothing_is_overwritten(ca: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _issue(ca, tmp_path / "api")
    (tmp_path / "api/tls.crt").unlink()
    before = {path: path.read_bytes() for path in tmp_path.glob("**/*.*")}
    assert main(["init", "--authority", ca]) == 1
    assert _issue(ca, tmp_path / "api") == 1
    assert {path: path.read_bytes() for path in tmp_path.glob("**/*.*")} == before
    said = capsys.readouterr().err
    assert f"{ca}/ca.crt, {ca}/ca.key: already there" in said
    assert "tls.key, " in said


def test_renewal_keeps_who_it_is_for_how_long_and_what_its_group_may(ca: str, tmp_path: Path) -> None:
    place = tmp_path / "api"
    _issue(ca, place, "--host", "api.example.com", "--days", "20")
    before = _certificate(place)
    key = (place / "tls.key").read_bytes()
    (place / "tls.key").chmod(0o640)
    (place / "ca.crt").write_bytes((place / "ca.crt").read_bytes() * 2)  # as in the middle of a change of authority
    assert main(["renew", "--authority", ca, str(place)]) == 0
    after = read_tls(_files(place)).certificate
    assert certified_identity(after) == certified_identity(before)
    assert hosts_in(after) == ["api.example.com"]
    assert after.serial_number != before.serial_number
    assert (place / "tls.key").read_bytes() != key
    assert stat.S_IMODE((place / "tls.key").stat().st_mode) == 0o640
    assert abs(after.not_valid_after_utc - before.not_valid_after_utc) < timedelta(minutes=10)
    assert (place / "ca.crt").read_bytes().count(b"BEGIN") == 2
    assert sorted(path.name for path in place.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]


def test_renewal_by_another_authority(ca: str, tmp_path: Path) -> None:
    _issue(ca, tmp_path / "api")
    main(["init", "--authority", str(tmp_path / "new")])
    assert main(["renew", "--authority", str(tmp_path / "new"), "--days", "7", str(tmp_path / "api")]) == 0
    issuer = x509.load_pem_x509_certificate((tmp_path / "new/ca.crt").read_bytes())
    _certificate(tmp_path / "api").verify_directly_issued_by(issuer)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--role", "api", "--name", "N1"], "--name 'N1' is not a name: lower-case"),
        (["--role", "reader", "--name", "a", "--host", "x"], "nobody connects to a certificate of the role reader"),
        (
            ["--role", "api", "--name", "a", "--host", "x:1"],
            "'x:1': write a host name or an IP address, without a port",
        ),
        (["--role", "api", "--name", "a", "--host", "b.admin.slipway.internal"], "say who somebody is"),
        (["--role", "api", "--name", "a", "--days", "9999"], "the authority itself ends at"),
    ],
)
def test_what_is_refused(
    ca: str, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["issue", "--authority", ca, "--out", str(tmp_path / "x"), *arguments]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("arguments", [["--role", "root"], ["--role", "api", "--days", "0"]])
def test_words_that_are_none(ca: str, tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["issue", "--authority", ca, "--name", "a", "--out", str(tmp_path / "x"), *arguments])


def test_an_authority_that_is_none(ca: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _issue(str(tmp_path / "nowhere"), tmp_path / "x") == 1
    main(["init", "--authority", str(tmp_path / "other")])
    (Path(ca) / "ca.key").write_bytes((tmp_path / "other/ca.key").read_bytes())
    assert _issue(ca, tmp_path / "x") == 1
    (Path(ca) / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    assert _issue(ca, tmp_path / "x") == 1
    said = capsys.readouterr().err
    assert "cannot read" in said
    assert "ca.key is not the key of" in said
    assert "ca.crt is no whole certificate" in said
    assert not (tmp_path / "x").exists()


def test_renewing_what_says_no_role(ca: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/tls.crt").write_bytes((Path(ca) / "ca.crt").read_bytes())
    assert main(["renew", "--authority", ca, str(tmp_path / "x")]) == 1
    assert "is not a certificate for a role" in capsys.readouterr().err
