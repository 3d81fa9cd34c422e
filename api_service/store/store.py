"""The store's Protocol: an ordered key-value store with compare-and-set, transactions and a resumable change feed.

It is the part of etcd's data model that the API needs, so that the embedded store and a cluster's differ in nothing
an operation could see. Keys are paths (`containers/<id>`); a revision is the store's global counter, which grows with
each commit: by one when nobody else uses it. Source: https://etcd.io/docs/v3.5/learning/data_model/
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.errors import Aborted

STORE_FULL = "STORE_FULL"
"""Reason of a commit for which a store has no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key's value and the revision of the commit that wrote it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write `value`. `expected_revision`: None writes whatever is there, 0 demands that the key is absent, any other
    number that it was last written by that revision."""

    key: str
    value: bytes
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove the key; absent keys are fine unless `expected_revision` says otherwise (as in `Put`)."""

    key: str
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key as one commit left it; `value` is None for a removal."""

    key: str
    value: bytes | None
    revision: int


class RevisionConflict(Aborted):
    """A compare failed, nothing was written. `current` is what stands under `key` (None: absent)."""

    default_reason = "REVISION_CONFLICT"

    def __init__(self, key: str, current: Entry | None) -> None:
        super().__init__(f"{key}: changed by somebody else; read it again and repeat")
        self.key = key
        self.current = current


class Store(Protocol):
    """Every method raises Unavailable when the store cannot be reached, ResourceExhausted when its disk is full."""

    async def get(self, key: str) -> Entry | None:
        """The last committed entry, see `catch_up`."""

    async def list(self, prefix: str, *, limit: int = 0, after_key: str = "") -> Sequence[Entry]:
        """Entries whose key begins with `prefix`, ordered by key, from after `after_key`; at most `limit` (0: all)."""

    async def commit(self, *operations: Put | Delete) -> int:
        """Apply all or nothing; return the new revision once it is durable, and whatever is read here from then on
        includes it. What changes nothing may return the revision as it was. Raises RevisionConflict: what is read from
        then on includes what was in the way. A caller that is cancelled does not know whether the commit happened, nor
        one that is told Unavailable."""

    async def revision(self) -> int:
        """The revision of the last commit, as far as reads here include it."""

    async def catch_up(self) -> bool:
        """Whatever is read from then on includes every commit that was acknowledged before, also by other processes. To
        be called at the beginning of a request. Does not fail: without an answer of who knows, reads go on with what
        was known last, and it returns false."""

    async def changes(self, prefix: str, *, after: int) -> tuple[Sequence[Change], int] | None:
        """What has changed under `prefix` in revisions greater than `after`, in order, as far as reads here include it,
        and the revision up to which that is. None when so much is not at hand: list again."""

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        """Every change under `prefix` of a revision greater than `after`, in order, without end: first history, then
        live, with no gap between. Changes of one commit come in the order of its operations. Raises OutOfRange (reason
        `CURSOR_GONE`) when `after` lies before the kept history."""
