"""Who calls, and whether they may: looked at with each call, and every few seconds while a call lasts.

A connection is checked by TLS when it is made, and may live for months. So that a certificate that expires, or whose
authority is no longer trusted, ends there, its calls are looked at again: it is refused, and its calls are ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from common.access import ACCESS
from common.errors import PermissionDenied, ResourceExhausted, SlipwayError, Unauthenticated
from common.identity import Identity
from common.tls import TlsMaterial, TlsSource, certified_identity

_log = structlog.get_logger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]

# The reasons of a refusal that is about who calls.
REFUSED_IDENTITIES = frozenset(
    {"CERTIFICATE_UNTRUSTED", "CERTIFICATE_EXPIRED", "CERTIFICATE_WITHOUT_ROLE", "ROLE_NOT_ALLOWED"}
)

_LOOK_EVERY = 5.0  # seconds
_MAX_KNOWN = 4096  # certificates taken apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a certificate says; `trusted`: by the authorities it was compared with."""

    certificate: x509.Certificate
    identity: Identity | None
    trusted: bool

    @property
    def subject(self) -> str:
        names = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""

    @property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:x}"


@dataclass(slots=True, kw_only=True)
class _Running:
    """A call under way; `ended`: why it may not go on."""

    pem: bytes
    method: str
    limit: asyncio.Timeout
    ended: SlipwayError | None = None


class Callers:
    """`look_every`: seconds between two looks at who is calling. `most`: calls that one of them may have under way, so
    that nobody keeps all others out; None: any number."""

    def __init__(self, source: TlsSource, *, look_every: float = _LOOK_EVERY, most: int | None = None) -> None:
        self._source = source
        self._look_every = look_every
        self._most = most
        self._calls: Counter[Identity | None] = Counter()
        self._known: dict[bytes, Caller] = {}
        self._known_under: TlsMaterial | None = None
        self._running: dict[int, _Running] = {}
        self._looking: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def admitted(self, method: str, context: _Context) -> AsyncIterator[None]:
        """Around a call. Raises Unauthenticated and PermissionDenied, also in its middle, and ResourceExhausted."""
        pem = _certificate_of(context)
        if pem is None:  # by a unix socket
            yield
            return
        identity = self._caller(pem).identity
        structlog.contextvars.bind_contextvars(caller=str(identity))
        if (refusal := self._refusal(pem, method)) is not None:
            raise refusal
        if self._most is not None and self._calls[identity] >= self._most:
            raise ResourceExhausted(
                f"{identity} has {self._most} calls under way here, the most that one caller may have; end some",
                reason="TOO_MANY_CALLS",
            )
        limit = asyncio.timeout(None)
        running = _Running(pem=pem, method=method, limit=limit)
        self._calls[identity] += 1
        try:
            async with limit:
                self._watch(running)
                yield
        except TimeoutError:
            if running.ended is None:
                raise
            raise running.ended from None
        finally:
            self._running.pop(id(running), None)
            self._calls[identity] -= 1
            if not self._calls[identity]:
                del self._calls[identity]

    def _refusal(self, pem: bytes, method: str) -> SlipwayError | None:
        caller = self._caller(pem)
        try:
            _require(caller, method)
        except SlipwayError as error:
            _log.warning(
                "call refused",
                method=method.removeprefix("/"),
                reason=error.reason,
                subject=caller.subject,
                serial=caller.serial,
            )
            return error
        return None

    def _caller(self, pem: bytes) -> Caller:
        material = self._source.current()
        if material is not self._known_under or len(self._known) >= _MAX_KNOWN:
            self._known, self._known_under = {}, material
        if (known := self._known.get(pem)) is None:
            certificate = x509.load_pem_x509_certificate(pem)
            known = self._known[pem] = Caller(
                certificate=certificate,
                identity=certified_identity(certificate),
                trusted=any(_issued(certificate, authority) for authority in material.authorities),
            )
        return known

    def _watch(self, running: _Running) -> None:
        self._running[id(running)] = running
        if self._looking is None:
            self._look_later()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(self._look_every, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for running in self._running.values():
            if running.ended is None and (refusal := self._refusal(running.pem, running.method)) is not None:
                running.ended = refusal
                running.limit.reschedule(now)
        self._looking = None
        if self._running:
            self._look_later()


def _certificate_of(context: _Context) -> bytes | None:
    return next(iter(context.auth_context().get("x509_pem_cert", ())), None)


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _require(caller: Caller, method: str) -> None:
    identity = caller.identity
    if not caller.trusted:
        raise Unauthenticated(
            "your certificate's authority is not trusted here any more; get one of the present authority",
            reason="CERTIFICATE_UNTRUSTED",
        )
    if not caller.certificate.not_valid_before_utc <= datetime.now(UTC) <= caller.certificate.not_valid_after_utc:
        raise Unauthenticated(
            f"your certificate is valid from {caller.certificate.not_valid_before_utc:%F %T} to "
            f"{caller.certificate.not_valid_after_utc:%F %T} UTC only; renew it",
            reason="CERTIFICATE_EXPIRED",
        )
    if identity is None:
        raise Unauthenticated(
            "your certificate names no role: it needs one DNS name NAME.ROLE.slipway.internal",
            reason="CERTIFICATE_WITHOUT_ROLE",
        )
    allowed = ACCESS.get(method, frozenset())
    if identity.role not in allowed:
        raise PermissionDenied(
            f"{identity} may not call {method.removeprefix('/')}; a certificate for it has the role "
            f"{' or '.join(sorted(allowed)) or '(none)'}",
            reason="ROLE_NOT_ALLOWED",
            metadata={"role": identity.role, "method": method.removeprefix("/")},
        )
