"""TLS between machines: three files, read again when they change, and the gRPC credentials made of them.

Both sides show a certificate, and both check the other's against the same authorities. New files are taken for the next
connection; files that do not fit together, as in the middle of being replaced, leave what was read before in use.
"""

from __future__ import annotations

import stat
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from common.errors import InvalidArgument
from common.identity import Identity, identity_in
from common.settings import TlsFiles

_log = structlog.get_logger(__name__)

_LOOK_EVERY = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    chain: bytes
    key: bytes
    authorities_pem: bytes
    certificate: x509.Certificate
    authorities: tuple[x509.Certificate, ...]

    @property
    def identity(self) -> Identity | None:
        return certified_identity(self.certificate)


def certified_identity(certificate: x509.Certificate) -> Identity | None:
    """Who the certificate is for; None when it does not say."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    return identity_in(names.get_values_for_type(x509.DNSName))


def read_tls(files: TlsFiles) -> TlsMaterial:
    """Raises InvalidArgument for what is missing, no PEM, not of each other, or a key that everybody may read."""
    chain, authorities_pem = _read(files.certificate), _read(files.authorities)
    certificate = _certificates(files.certificate, chain)[0]
    key = _read(files.key)
    mode = stat.S_IMODE(files.key.stat().st_mode)
    if mode & 0o007:
        raise InvalidArgument(f"tls_key: everybody may use {files.key} (mode {mode:04o}); chmod 0600 it, and renew it")
    try:
        public = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"tls_key: {files.key} is no private key in PEM without a password") from error
    if _plain(public) != _plain(certificate.public_key()):
        raise InvalidArgument(f"tls_key: {files.key} is not the key of the certificate {files.certificate}")
    return TlsMaterial(
        chain=chain,
        key=key,
        authorities_pem=authorities_pem,
        certificate=certificate,
        authorities=tuple(_certificates(files.authorities, authorities_pem)),
    )


def _plain(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]  # each kind has it


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"TLS: cannot read {path}: {error.strerror}") from error


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidArgument(f"TLS: {path} holds no whole certificate in PEM") from error


class TlsSource:
    """The files as they are now. Safe to use from any thread."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises InvalidArgument, see `read_tls`."""
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._state()
        self._material = read_tls(files)
        self._looked = time.monotonic()
        self._tell()

    def current(self) -> TlsMaterial:
        """The same object until the files have changed, and are whole."""
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_EVERY:
                self._looked = time.monotonic()
                if (state := self._state()) != self._seen:
                    self._reload(state)
            return self._material

    def _reload(self, state: tuple[object, ...]) -> None:
        try:
            self._material = read_tls(self._files)
        except InvalidArgument as error:
            _log.warning("TLS files not taken, those read before stay in use", error=error.message)
        else:
            _log.info("TLS files taken")
            self._tell()
        self._seen = state

    def _state(self) -> tuple[object, ...]:
        return tuple(map(_state_of, (self._files.certificate, self._files.key, self._files.authorities)))

    def _tell(self) -> None:
        certificate = self._material.certificate
        who, ends = str(self._material.identity), certificate.not_valid_after_utc
        if ends < datetime.now(UTC):
            # Not refused: who connects to the unix socket should not lose the service as well.
            _log.error("own certificate has expired; renew it", identity=who, ended=ends.isoformat())
        else:
            _log.info("own certificate", identity=who, ends=ends.isoformat())


def _state_of(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode)


def server_credentials(source: TlsSource) -> grpc.ServerCredentials:
    """For one address: whoever connects must show a certificate of one of the authorities."""
    given = source.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks at each connection, in a thread of its own."""
        nonlocal given
        now = source.current()
        if now is given:
            return None
        given = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type]  # None says that nothing has changed; the stub does not know
        require_client_authentication=True,
    )


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.chain)], root_certificates=material.authorities_pem
    )


def channel_credentials(material: TlsMaterial) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(material.authorities_pem, material.key, material.chain)
