"""The keys and values of an embedded store in memory, ordered, and the rules of a commit over them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence

from api_service.store.store import STORE_FULL, Change, Delete, Entry, Put, RevisionConflict
from common.errors import ResourceExhausted

MAX_OPERATIONS = 125
"""Operations in one commit: etcd's default of 128, less the three that its store adds, so that what the embedded store
takes a cluster's takes too."""

MAX_COMMIT_BYTES = 1408 * 1024
"""Keys and values of one commit: etcd's default request size of 1.5 MiB, less 128 KiB for what its store adds.
Source: https://etcd.io/docs/v3.5/dev-guide/limit/"""


RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
"""Reason of a commit that is larger than that."""


QUOTA = 256 * 1024 * 1024
"""Bytes that a store holds, unless it is told otherwise."""

RESERVE = 96 * 1024 * 1024
"""Bytes beyond the quota, unless a store is told otherwise."""


class KeySpace:
    """Not thread-safe: belongs to the event loop. Keys are ordered by code point, which is the order of their UTF-8."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.key: entry for entry in entries}
        self._keys = sorted(self._entries)
        self._size = sum(_size(entry.key, entry.value) for entry in self._entries.values())

    @property
    def size(self) -> int:
        """Bytes of all keys and values."""
        return self._size

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def list(self, prefix: str, *, limit: int, after_key: str) -> list[Entry]:
        """Work is proportional to the answer, not to the keys held. See `Store.list`."""
        index = bisect_left(self._keys, prefix)
        if after_key:
            index = max(index, bisect_right(self._keys, after_key))
        end = bisect_left(self._keys, True, lo=index, key=lambda key: not key.startswith(prefix))
        if limit:
            end = min(end, index + limit)
        return [self._entries[key] for key in self._keys[index:end]]

    def growth(self, operations: Sequence[Put | Delete]) -> int:
        """Bytes that the operations add to `size`; negative when they free some."""
        held = (self._entries.get(operation.key) for operation in operations)
        return _put_bytes(operations) - sum(_size(entry.key, entry.value) for entry in held if entry is not None)

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if (old := self._entries.pop(change.key, None)) is not None:
                self._size -= _size(old.key, old.value)
            if change.value is not None:
                self._entries[change.key] = Entry(key=change.key, value=change.value, revision=change.revision)
                self._size += _size(change.key, change.value)
                if old is None:
                    insort(self._keys, change.key)
            elif old is not None:
                del self._keys[bisect_left(self._keys, change.key)]


def check_room(keys: KeySpace, operations: Sequence[Put | Delete], *, quota: int, reserve: int, where: object) -> None:
    """Refuse what would make the keys larger than `quota`. Commits that free more than they add always have room. One
    that removes or overwrites a key may pass the quota by `reserve` bytes, so that what exists can change and go, and
    tell of it, when nothing new fits. Raises ResourceExhausted (`STORE_FULL`)."""
    growth = keys.growth(operations)
    changes = any(keys.get(each.key) is not None for each in operations)
    if growth > 0 and keys.size + growth > quota + (reserve if changes else 0):
        raise ResourceExhausted(
            f"{where}: the store holds {keys.size} bytes of records and may hold {quota}; "
            "remove containers, or raise the quota",
            reason=STORE_FULL,
        )


def check_operations(operations: Sequence[Put | Delete]) -> None:
    """Refuse what no store could take. Raises ValueError (a bug of the caller) and ResourceExhausted (too large)."""
    keys = [operation.key for operation in operations]
    if len(keys) > MAX_OPERATIONS:
        raise ResourceExhausted(
            f"{keys[0]}: a commit of {len(keys)} keys, at most {MAX_OPERATIONS} are possible; use fewer volumes",
            reason=RECORD_TOO_LARGE,
        )
    if len(set(keys)) != len(keys):
        raise ValueError(f"a key is given twice in one commit: {sorted(keys)}")
    for key in keys:
        if not key or "\0" in key:
            raise ValueError(f"not a key: {key!r}")
        key.encode()  # a lone surrogate has no UTF-8: ValueError
    if (size := _put_bytes(operations)) > MAX_COMMIT_BYTES:
        raise ResourceExhausted(
            f"{keys[0]}: a commit of {size} bytes, at most {MAX_COMMIT_BYTES} are possible; make the record smaller",
            reason=RECORD_TOO_LARGE,
        )


def check_expected(operation: Put | Delete, current: Entry | None) -> None:
    """The compare of compare-and-set. Raises RevisionConflict."""
    expected = operation.expected_revision
    if expected is not None and expected != (current.revision if current is not None else 0):
        raise RevisionConflict(operation.key, current)


def change_of(operation: Put | Delete, current: Entry | None, revision: int) -> Change | None:
    """What the operation changes at `revision`; None for the removal of what is not there."""
    if isinstance(operation, Put):
        return Change(key=operation.key, value=operation.value, revision=revision)
    return Change(key=operation.key, value=None, revision=revision) if current is not None else None


def _put_bytes(operations: Sequence[Put | Delete]) -> int:
    return sum(_size(operation.key, operation.value) for operation in operations if isinstance(operation, Put))


def _size(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value)
