"""Health checks: which probe, how often, and when a container is unhealthy. Source: Docker's HEALTHCHECK."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from api_service.records.health import NO_CHECK as NONE
from api_service.records.health import GrpcProbe, HealthConfig, HttpProbe, TcpProbe
from api_service.validation.lengths_of_time import SECOND, validate_length
from api_service.validation.process import validate_words
from common.errors import Violation

CMD, CMD_SHELL = "CMD", "CMD-SHELL"
DEFAULT_SHELL = ("/bin/sh", "-c")

_INTERVAL = 30 * SECOND
_TIMEOUT = 30 * SECOND
_START_INTERVAL = 5 * SECOND
_RETRIES = 3
_MOST_RETRIES = 1_000_000
_TARGET = re.compile(r"/[!-~]{0,4095}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # token, RFC 9110
_HEADER_VALUE = re.compile(r"[ -~]{0,4096}")


def validate_health(check: HealthConfig, field: str) -> list[Violation]:
    probes = {"test": check.test, "http": check.http, "tcp": check.tcp, "grpc": check.grpc}
    given = [name for name, probe in probes.items() if probe]
    found: list[Violation] = []
    if len(given) > 1:
        found.append(Violation(field=field, description=f"probes by {' and '.join(given)}; give one of them"))
    found += _validate_test(check.test, f"{field}.test") if check.test else []
    for name, probe in (("http", check.http), ("tcp", check.tcp), ("grpc", check.grpc)):
        if probe is not None and not 1 <= probe.port <= 65535:
            found.append(Violation(field=f"{field}.{name}.port", description=f"{probe.port} is not from 1 to 65535"))
    found += _validate_http(check.http, f"{field}.http") if check.http is not None else []
    for name in ("interval", "timeout", "start_period", "start_interval"):
        found += validate_length(getattr(check, name), f"{field}.{name}")
    if not 0 <= check.retries <= _MOST_RETRIES:
        why = f"{check.retries} is not from 0 to {_MOST_RETRIES}; 0 is the default, {_RETRIES}"
        found.append(Violation(field=f"{field}.retries", description=why))
    return found


def merge_health(check: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """The request's field by field, else the image's, else the default. `NONE` stays and says that there is no check;
    None comes back when nobody names a probe."""
    if check is None:
        merged = image
    elif image is None:
        merged = check
    else:
        merged = replace(
            check if _probe(check) else replace(check, test=image.test),
            interval=check.interval or image.interval,
            timeout=check.timeout or image.timeout,
            start_period=check.start_period or image.start_period,
            start_interval=check.start_interval or image.start_interval,
            retries=check.retries or image.retries,
        )
    if merged is None or not _probe(merged):
        return None
    return replace(
        merged,
        interval=merged.interval or _INTERVAL,
        timeout=merged.timeout or _TIMEOUT,
        start_interval=merged.start_interval or _START_INTERVAL,
        retries=merged.retries or _RETRIES,
    )


def probe_program(test: tuple[str, ...], shell: tuple[str, ...]) -> tuple[str, ...]:
    """The program of a valid `CMD` or `CMD-SHELL` test and its arguments."""
    return (*(shell or DEFAULT_SHELL), *test[1:]) if test[0] == CMD_SHELL else test[1:]


def _probe(check: HealthConfig) -> tuple[str, ...] | HttpProbe | TcpProbe | GrpcProbe | None:
    return check.test or check.http or check.tcp or check.grpc


def _validate_test(test: tuple[str, ...], field: str) -> list[Violation]:
    word, rest = test[0], test[1:]
    if word == NONE:
        why = f"nothing can follow '{NONE}', which switches the check off" if rest else ""
    elif word == CMD:
        why = "" if rest and rest[0] else f"'{CMD}' must be followed by a program and its arguments"
    elif word == CMD_SHELL:
        why = "" if len(rest) == 1 and rest[0] else f"'{CMD_SHELL}' must be followed by one line for the shell"
    else:
        why = f"{word[:64]!r} is none of '{CMD}', '{CMD_SHELL}' and '{NONE}', one of which must come first"
    return [Violation(field=field, description=why)] if why else validate_words(test, field)


def _validate_http(probe: HttpProbe, field: str) -> list[Violation]:
    found: list[Violation] = []
    if probe.path and not _TARGET.fullmatch(probe.path):
        why = f"{probe.path[:64]!r} must begin with '/' and be printable ASCII without blanks; encode others as %20"
        found.append(Violation(field=f"{field}.path", description=why))
    for name, value in probe.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            why = "must be a header's name and a value of printable ASCII on one line (RFC 9110)"
            found.append(Violation(field=f"{field}.headers[{json.dumps(name)}]", description=why))
    return found
