"""Whom to trust and what to show in TLS, by registry.

A directory as Docker has it: `<directory>/<host[:port]>/` with authorities (`*.crt`), which count beside those of the
node, and certificates of ours (`*.cert`, each with its `*.key`). Read anew for each connection. Source:
https://docs.docker.com/engine/security/certificates/
"""

from __future__ import annotations

import ssl
from pathlib import Path

from common.errors import FailedPrecondition


def tls_context(directory: Path | None, host: str) -> ssl.SSLContext:
    """For `host`, with its port if any. Blocks. Raises FailedPrecondition (`REGISTRY_CERTIFICATES_UNUSABLE`)."""
    context = ssl.create_default_context()
    if directory is None or not host.strip("."):
        return context
    place = directory / host
    try:
        files = sorted(place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return context
    except OSError as error:
        raise _unusable(place, error.strerror or repr(error)) from error
    for path in files:
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, path.with_suffix(".key"))
        except FileNotFoundError as error:
            raise _unusable(path, f"there is no {path.stem}.key beside it") from error
        except OSError as error:  # ssl.SSLError is one
            raise _unusable(path, error.strerror or repr(error)) from error
    return context


def _unusable(path: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"certificates for registries, {path}: {why}; mend or remove it", reason="REGISTRY_CERTIFICATES_UNUSABLE"
    )
