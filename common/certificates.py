"""Certificates for a cluster: `python -m common.certificates init|issue|renew`.

`init` makes an authority in a directory of its own, which no machine of the cluster needs; `issue` a directory with the
three files that a service or a client is given: tls.crt, tls.key and ca.crt; `renew` replaces the first two in place.
Nothing that is there is overwritten by the others. Keys are readable for their owner alone.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from common.certificate_authority import SERVES, Certified, hosts_in, issue, make_authority
from common.errors import AlreadyExists, InvalidArgument, NotFound, SlipwayError
from common.identity import DOMAIN, Identity, Role
from common.tls import certified_identity

_CERTIFICATE, _KEY, _AUTHORITY, _AUTHORITY_KEY = "tls.crt", "tls.key", "ca.crt", "ca.key"
_HOST = re.compile(
    r"(?=.{1,253}\Z)(\*\.)?[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        for line in options.command(options):
            print(line)  # noqa: T201 - a command's output
    except SlipwayError as error:
        print(f"certificates: {error.message}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m common.certificates", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="make an authority")
    init.set_defaults(command=_init)
    init.add_argument("--authority", type=Path, required=True, metavar="DIR", help="its directory, made anew")
    init.add_argument("--name", default="slipway", help="its common name (default: slipway)")
    init.add_argument("--days", type=_days, default=_days("3650"), help="how long it is good (default: 3650)")

    one = commands.add_parser("issue", help="certify a service, a person or a program")
    one.set_defaults(command=_issue)
    one.add_argument("--authority", type=Path, required=True, metavar="DIR", help="what init has made")
    one.add_argument("--role", type=Role, required=True, choices=list(Role), help="what it may do, see docs/cluster.md")
    one.add_argument("--name", required=True, help="who it is; of an executor: the node's name")
    one.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME_OR_ADDRESS",
        help="what clients reach an API or etcd by; may be repeated",
    )
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the three files go")
    one.add_argument("--days", type=_days, default=_days("365"), help="how long it is good (default: 365)")

    renew = commands.add_parser("renew", help="a new key and certificate for the same, in place")
    renew.set_defaults(command=_renew)
    renew.add_argument("--authority", type=Path, required=True, metavar="DIR", help="what init has made")
    renew.add_argument("--days", type=_days, help="how long it is good (default: as long as the one before)")
    renew.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="what issue has made")
    return parser


def _days(text: str) -> timedelta:
    if not text.isdigit() or not 1 <= int(text) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 36500")
    return timedelta(days=int(text))


def _init(options: argparse.Namespace) -> list[str]:
    directory: Path = options.authority
    _refuse_present([directory / _AUTHORITY, directory / _AUTHORITY_KEY])
    made = make_authority(options.name, valid=options.days)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(directory / _AUTHORITY_KEY, made.key_pem, mode=0o600)
    _write(directory / _AUTHORITY, made.certificate_pem, mode=0o644)
    return [
        f"authority {options.name!r} in {directory}, good until {_ends(made)}; keep {_AUTHORITY_KEY} off the cluster"
    ]


def _issue(options: argparse.Namespace) -> list[str]:
    try:
        identity = Identity(name=options.name, role=options.role)
    except ValueError as error:
        raise InvalidArgument(f"--name {error}") from error
    _check_hosts(identity, options.host)
    directory: Path = options.out
    _refuse_present([directory / name for name in (_CERTIFICATE, _KEY, _AUTHORITY)])
    authority = _authority(options.authority)
    made = _certify(authority, identity, hosts=options.host, valid=options.days)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(directory / _KEY, made.key_pem, mode=0o600)
    _write(directory / _CERTIFICATE, made.certificate_pem, mode=0o644)
    _write(directory / _AUTHORITY, authority.certificate_pem, mode=0o644)
    return [_told(identity, made, directory)]


def _renew(options: argparse.Namespace) -> list[str]:
    authority = _authority(options.authority)
    return [_renew_one(authority, directory, options.days) for directory in options.directories]


def _renew_one(authority: Certified, directory: Path, days: timedelta | None) -> str:
    path = directory / _CERTIFICATE
    before = _certificate(path)
    identity = certified_identity(before)
    if identity is None:
        raise InvalidArgument(f"{path} is not a certificate for a role; make one with `issue`")
    valid = days or timedelta(days=max(1, (before.not_valid_after_utc - before.not_valid_before_utc).days))
    made = _certify(authority, identity, hosts=hosts_in(before), valid=valid)
    # Between the two replacements the files do not fit together; who reads them then goes on with what it has.
    _replace(directory / _KEY, made.key_pem, mode=0o600)
    _replace(path, made.certificate_pem, mode=0o644)
    return _told(identity, made, directory)


def _check_hosts(identity: Identity, hosts: Sequence[str]) -> None:
    if hosts and identity.role not in SERVES:
        raise InvalidArgument(f"--host: nobody connects to a certificate of the role {identity.role}; leave it out")
    for host in hosts:
        if not (_is_address(host) or _HOST.fullmatch(host)):
            raise InvalidArgument(f"--host {host!r}: write a host name or an IP address, without a port")
        if host.lower().endswith(f".{DOMAIN}"):
            raise InvalidArgument(
                f"--host {host!r}: names in {DOMAIN} say who somebody is; they follow --name and --role"
            )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _authority(directory: Path) -> Certified:
    certificate = _certificate(directory / _AUTHORITY)
    path = directory / _AUTHORITY_KEY
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{path} is no private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InvalidArgument(f"{path} is not the key of {directory / _AUTHORITY}")
    return Certified(certificate=certificate, key=key)


def _certify(authority: Certified, identity: Identity, *, hosts: Sequence[str], valid: timedelta) -> Certified:
    ends = authority.certificate.not_valid_after_utc
    if datetime.now(UTC) + valid > ends:
        raise InvalidArgument(
            f"--days {valid.days}: the authority itself ends at {ends:%F}; say fewer, or make a new one"
        )
    return issue(authority, identity, hosts=hosts, valid=valid)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise InvalidArgument(f"{path} is no whole certificate in PEM") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error


def _refuse_present(paths: Sequence[Path]) -> None:
    if present := [str(path) for path in paths if path.exists()]:
        raise AlreadyExists(f"{', '.join(present)}: already there, and not overwritten; name another directory")


def _write(path: Path, content: bytes, *, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    """Keeps whom the file belongs to, and what its group may."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    _write(new, content, mode=mode)
    if path.exists():
        status = path.stat()
        os.chown(new, status.st_uid, status.st_gid)
        new.chmod(status.st_mode & 0o750 if mode == 0o600 else mode)
    new.rename(path)


def _told(identity: Identity, made: Certified, directory: Path) -> str:
    return f"{identity} in {directory}, serial {made.certificate.serial_number:x}, good until {_ends(made)}"


def _ends(made: Certified) -> str:
    return f"{made.certificate.not_valid_after_utc:%F %T} UTC"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
