"""The version of the protocol between the services, `slipway.executor.v1`.

What is added to it needs no new version, as unknown fields and RPCs are refused by name; what means something else than
before does. Each service says which versions it speaks, from the oldest on, and has nothing to do with one that shares
none with it (see common/call_terms.py). An executor that says nothing speaks version 0, from before there were any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

NODE_INCOMPATIBLE = "NODE_INCOMPATIBLE"
"""Reason of the refusal."""

_WRITTEN = re.compile(r"([0-9]{1,9})-([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolRange:
    """From the oldest version that is spoken to the latest."""

    oldest: int
    latest: int

    def __str__(self) -> str:
        return str(self.latest) if self.oldest == self.latest else f"{self.oldest} to {self.latest}"

    def meets(self, other: ProtocolRange) -> bool:
        return max(self.oldest, other.oldest) <= min(self.latest, other.latest)

    @property
    def written(self) -> str:
        """For `read`."""
        return f"{self.oldest}-{self.latest}"

    @classmethod
    def read(cls, written: str) -> Self:
        """What cannot be read is of no version that there will be."""
        found = _WRITTEN.fullmatch(written)
        return cls(oldest=int(found[1]), latest=int(found[2])) if found else cls(oldest=0, latest=0)


OURS = ProtocolRange(oldest=1, latest=1)
