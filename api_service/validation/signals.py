"""Signals by name or number, as Linux numbers them on x86, ARM, RISC-V and their kin. Source: signal(7)"""

from __future__ import annotations

import re

from common.errors import Violation

DEFAULT_STOP_SIGNAL = "SIGTERM"

_RTMIN = 34  # glibc and musl keep 32 and 33 for themselves
_RTMAX = 64
_IN_ORDER = """
HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT
CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS
"""
_ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31, "RTMIN": _RTMIN, "RTMAX": _RTMAX}
_NUMBERS = {name: number for number, name in enumerate(_IN_ORDER.split(), start=1)} | _ALIASES
_REAL_TIME = re.compile(r"RT(MIN\+|MAX-)([0-9]{1,2})")


def parse_signal(text: str) -> int | None:
    """The number, from 1 to 64; None when `text` is no signal. `SIG` before a name and its case do not matter."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= 3 else 0
        return number if 1 <= number <= _RTMAX else None
    name = text.upper().removeprefix("SIG")
    if (known := _NUMBERS.get(name)) is not None:
        return known
    if (match := _REAL_TIME.fullmatch(name)) is None:
        return None
    offset = int(match[2])
    number = _RTMIN + offset if match[1] == "MIN+" else _RTMAX - offset
    return number if _RTMIN <= number <= _RTMAX else None


def validate_signal(text: str, field: str) -> list[Violation]:
    if parse_signal(text) is not None:
        return []
    shown = repr(text if len(text) <= 40 else text[:37] + "...")
    rule = "give a name like SIGTERM, TERM or RTMIN+3, or a number from 1 to 64"
    return [Violation(field=field, description=f"{shown} is not a signal: {rule}")]
