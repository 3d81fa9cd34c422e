"""A commit as a transaction of etcd that may be sent again when an answer was lost.

It writes two keys of our own besides. `head`: its revision is the last commit's. And the *slot* that the commit goes
through, with the commit's id, if the slot is still as the commit before left it. A second copy of the transaction,
sent again by us or late from a member that hung, finds another slot and does nothing; the id in the slot says whether
the first one arrived. Slots belong to the lease, so they go with the process.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from etcdserverpb import etcd_service_pb2 as pb2
from mvccpb import kv_pb2

from api_service.etcd.client import EtcdClient, MemberFailedError, txn_call
from api_service.etcd.session import LeaseHeld
from api_service.etcd.target import Layout
from api_service.store.store import Change, Delete, Entry, Put, RevisionConflict
from common.errors import NotFound


class LeaseEndedError(Exception):
    """etcd has ended the lease. `certain`: and nothing was written."""

    def __init__(self, *, certain: bool) -> None:
        super().__init__("the lease has ended")
        self.certain = certain


@dataclass(slots=True)
class Slot:
    """`revision`: of the last commit through it, as far as is known; 0: of none."""

    key: bytes
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`revision` is the commit's; where there is a conflict, that of the last commit that there was. `changes` is what
    the commit changed, and `before` the revision of the commit before it, if that is known."""

    revision: int
    conflict: RevisionConflict | None = None
    before: int | None = None
    changes: Sequence[Change] = ()


class Transaction:
    """`run` may be called once."""

    def __init__(self, layout: Layout, lease: LeaseHeld, slot: Slot, operations: Sequence[Put | Delete]) -> None:
        self._layout = layout
        self._lease = lease
        self._slot = slot
        self._operations = operations
        self._compared = [each for each in operations if each.expected_revision is not None]
        self._marker = secrets.token_bytes(8)

    async def run(self, client: EtcdClient, *, until: float) -> Outcome:
        """Raises LeaseEndedError, Unavailable (then it is unknown whether it happened), ResourceExhausted."""
        failed = 0
        while True:
            try:
                answer = await client.attempt(txn_call(self._request()), until=until)
            except MemberFailedError as error:
                failed += 1
                await client.pause(failed, until=until, error=error)
                continue
            except NotFound as error:
                raise LeaseEndedError(certain=not failed) from error
            if answer.succeeded:
                self._slot.revision = answer.header.revision
                return self._done(answer)
            held = _key_value(answer.responses[0])
            if held is not None and held.value == self._marker:
                self._slot.revision = held.mod_revision
                return Outcome(revision=held.mod_revision)
            if self._slot.revision == (held.mod_revision if held is not None else 0):
                return self._refused(answer)
            if held is None:
                raise LeaseEndedError(certain=not failed)
            # One that went this way before, and whose caller did not wait for it, has arrived.
            self._slot.revision = held.mod_revision

    def _request(self) -> pb2.TxnRequest:
        layout, slot = self._layout, self._slot
        marked = pb2.PutRequest(key=slot.key, value=self._marker, lease=self._lease.id)
        return pb2.TxnRequest(
            compare=[
                compare_revision(slot.key, slot.revision),
                *(compare_revision(layout.record(each.key), each.expected_revision or 0) for each in self._compared),
            ],
            success=[
                read(layout.head),
                pb2.RequestOp(request_put=pb2.PutRequest(key=layout.head)),
                pb2.RequestOp(request_put=marked),
                *(self._operation(each) for each in self._operations),
            ],
            failure=[read(slot.key), read(layout.head), *(read(layout.record(each.key)) for each in self._compared)],
        )

    def _operation(self, operation: Put | Delete) -> pb2.RequestOp:
        key = self._layout.record(operation.key)
        if isinstance(operation, Put):
            return pb2.RequestOp(request_put=pb2.PutRequest(key=key, value=operation.value))
        return pb2.RequestOp(request_delete_range=pb2.DeleteRangeRequest(key=key))

    def _done(self, answer: pb2.TxnResponse) -> Outcome:
        before = _key_value(answer.responses[0])
        revision = answer.header.revision
        changes = [
            Change(key=operation.key, value=operation.value if isinstance(operation, Put) else None, revision=revision)
            for operation, response in zip(self._operations, answer.responses[3:], strict=True)
            if isinstance(operation, Put) or response.response_delete_range.deleted
        ]
        return Outcome(revision=revision, before=before.mod_revision if before is not None else None, changes=changes)

    def _refused(self, answer: pb2.TxnResponse) -> Outcome:
        """The first operation whose comparison failed."""
        head = _key_value(answer.responses[1])
        for operation, response in zip(self._compared, answer.responses[2:], strict=True):
            held = _key_value(response)
            if operation.expected_revision != (held.mod_revision if held is not None else 0):
                current = Entry(key=operation.key, value=held.value, revision=held.mod_revision) if held else None
                conflict = RevisionConflict(operation.key, current)
                return Outcome(revision=head.mod_revision if head is not None else 0, conflict=conflict)
        raise AssertionError("etcd refused a transaction all of whose comparisons hold")


def compare_revision(key: bytes, revision: int) -> pb2.Compare:
    """0: it is absent."""
    return pb2.Compare(result=pb2.Compare.EQUAL, target=pb2.Compare.MOD, key=key, mod_revision=revision)


def read(key: bytes) -> pb2.RequestOp:
    return pb2.RequestOp(request_range=pb2.RangeRequest(key=key))


def _key_value(response: pb2.ResponseOp) -> kv_pb2.KeyValue | None:
    found = response.response_range.kvs
    return found[0] if found else None
