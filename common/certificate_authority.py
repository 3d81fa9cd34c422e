"""An authority of our own and what it certifies: identities of `common.identity`, on P-256 keys.

Certificates are good from five minutes ago, for machines whose clocks differ by less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.identity import DOMAIN, Identity, Role

_SKEW = timedelta(minutes=5)

# What a certificate may be shown as: an executor dials nobody, and people are dialled by nobody.
SERVES = frozenset({Role.API, Role.EXECUTOR, Role.ETCD})
_DIALS = frozenset({Role.READER, Role.OPERATOR, Role.ADMIN, Role.API, Role.ETCD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_authority(name: str, *, valid: timedelta) -> Certified:
    """For leaves only: no authority below it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = _usage(digital_signature=False, key_cert_sign=True)
    builder = (
        _builder(subject, subject, key, valid=valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Certified(certificate=builder.sign(key, SHA256()), key=key)


def issue(
    authority: Certified,
    identity: Identity,
    *,
    hosts: Sequence[str] = (),
    valid: timedelta,
    not_before: datetime | None = None,
) -> Certified:
    """For the identity, and for a service also for the names and addresses in `hosts`, by which clients reach it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role),
        ]
    )
    purposes = [
        *([ExtendedKeyUsageOID.SERVER_AUTH] if identity.role in SERVES else []),
        *([ExtendedKeyUsageOID.CLIENT_AUTH] if identity.role in _DIALS else []),
    ]
    issuer_key = authority.key.public_key()
    builder = (
        _builder(authority.certificate.subject, subject, key, valid=valid, not_before=not_before)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(identity.dns_name), *map(_alternative_name, hosts)]),
            critical=False,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
    return Certified(certificate=builder.sign(authority.key, SHA256()), key=key)


def hosts_in(certificate: x509.Certificate) -> list[str]:
    """What `issue` was given as `hosts`."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = names.get_values_for_type(x509.DNSName)
    return [
        *(name for name in dns if not name.endswith(f".{DOMAIN}")),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    valid: timedelta,
    not_before: datetime | None = None,
) -> x509.CertificateBuilder:
    begins = not_before or datetime.now(UTC) - _SKEW
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _SKEW + valid if not_before is None else begins + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
