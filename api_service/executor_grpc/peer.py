"""Until when whoever is at an address can show who it is.

gRPC looks at the peer's certificate when a connection is made, and tells nobody what it saw; the connection may live
for months. So the certificate is looked at by a handshake of our own, which compares the same.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import datetime
from functools import lru_cache

from cryptography import x509

from common.tls import TlsMaterial

_HANDSHAKE_TIME = 10.0  # seconds


class NotThePeer(Exception):
    """Somebody else is there, or nobody any more: its certificate has ended."""


async def certified_until(address: str, *, name: str, material: TlsMaterial) -> datetime:
    """Of the certificate that is shown at `host:port` to a caller with this material; `name` is the one it has to be
    for. Raises NotThePeer, OSError when nobody answers."""
    host, _, port = address.rpartition(":")
    connecting = asyncio.open_connection(
        host.strip("[]"),
        int(port),
        ssl=_context(material),
        server_hostname=name,
        ssl_handshake_timeout=_HANDSHAKE_TIME,
    )
    try:
        async with asyncio.timeout(_HANDSHAKE_TIME):
            _, writer = await connecting
    except ssl.SSLCertVerificationError as error:
        raise NotThePeer(error.verify_message) from error
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(shown).not_valid_after_utc


@lru_cache(maxsize=2)
def _context(material: TlsMaterial) -> ssl.SSLContext:
    """One for all nodes: it takes milliseconds to make, and a thousand may be looked at together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=material.authorities_pem.decode())
    context.set_alpn_protocols(["h2"])
    # It takes a path only, and the files may be others by now.
    own = os.memfd_create("tls")
    try:
        os.write(own, material.chain + b"\n" + material.key)
        context.load_cert_chain(f"/proc/self/fd/{own}")
    finally:
        os.close(own)
    return context
