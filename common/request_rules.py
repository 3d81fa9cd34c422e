"""The rules that the protocol itself states for a request's fields (protovalidate), compiled once.

Most requests are checked before their handler is called. For some, the handler knows further rules, and the caller
shall hear of all broken ones at once: those are `deferred`, their handler asks for the violations itself.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import protovalidate
from google.protobuf.message import Message

from common.errors import InvalidArgument, Violation
from common.field_path import field_path


@cache
def _validator() -> protovalidate.Validator:
    """It compiles the rules of each type of message with the first one, and has no other state."""
    return protovalidate.Validator()


class RequestRules:
    """`deferred`: message types that `check` lets pass."""

    def __init__(self, *, deferred: Collection[type[Message]] = ()) -> None:
        self._validator = _validator()
        self._deferred = tuple(deferred)

    def violations(self, request: Message) -> list[Violation]:
        """Every rule of the protocol that the request breaks."""
        return [
            Violation(field=field_path(violation.proto.field), description=violation.proto.message)
            for violation in self._validator.collect_violations(request)
        ]

    def check(self, request: Message) -> None:
        """Raises InvalidArgument with every violation, unless the type is deferred."""
        if self._deferred and isinstance(request, self._deferred):
            return
        if broken := self.violations(request):
            raise InvalidArgument(violations=broken)
