"""The part of DNS messages that a resolver for stub resolvers needs: one question in, records out. RFC 1035, 6891.

Read by hand because this is on the path of every query of every container: dnslib takes 114 µs a query and dnspython
270, this 10. Nothing in a message is believed: every offset is checked against its end, a question's name may hold no
pointer (it would have nothing to point at), and of further records only the few that queries carry are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

TYPE_A, TYPE_PTR, TYPE_AAAA, TYPE_OPT, TYPE_ANY = 1, 12, 28, 41, 255
CLASS_IN = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED = 0, 1, 2, 4, 5
_BAD_VERSION = 16  # does not fit the header: its upper bits go into the OPT record

SMALLEST_LIMIT = 512  # bytes of a datagram, for whoever says nothing
LARGEST_DATAGRAM = 4096
LARGEST_MESSAGE = 65535
_OWN_LIMIT = 1232  # what we take, so that no answer is fragmented: DNS flag day 2020

_HEADER = struct.Struct("!HHHHHH")
_FIXED = struct.Struct("!HHIH")  # type, class, TTL, length of the data
_QUESTION_END = struct.Struct("!HH")
_RESPONSE, _TRUNCATED, _RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0080
_OPCODE, _ECHOED = 0x7800, 0x0110  # echoed: recursion desired, checking disabled
_NAME_OF_QUESTION = b"\xc0\x0c"
_LONGEST_NAME, _LONGEST_LABEL = 255, 63
_POINTER = 0xC0
_MOST_RECORDS = 16  # in a query: OPT, perhaps a signature


class Query(NamedTuple):
    """A query. A tuple, because a frozen dataclass takes four times as long to make."""

    id: int
    flags: int
    name: bytes  # as on the wire, lower case: b"\x03web\x00"; no length is a letter's code
    type: int
    klass: int
    question: bytes  # the whole question as it was asked
    edns: bool
    limit: int  # bytes of a datagram that may be answered with


@dataclass(slots=True)
class Malformed(Exception):
    """Not a query that can be answered; `answer` is what to say, nothing when it is not even a query."""

    answer: bytes


def parse_query(data: bytes) -> Query:
    """Raises Malformed."""
    if len(data) < _HEADER.size:
        raise Malformed(b"")
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed(b"")  # answering an answer is how two servers never stop talking
    if flags & _OPCODE:
        raise Malformed(_bare(number, flags, NOT_IMPLEMENTED))
    try:
        if questions != 1:
            raise ValueError("not one question")
        end = _name_end(data, _HEADER.size)
        kind, klass = _QUESTION_END.unpack_from(data, end)
        edns = _find_edns(data, end + 4, answers + authorities + additional)
    except (ValueError, IndexError, struct.error):
        raise Malformed(_bare(number, flags, FORMAT_ERROR)) from None
    query = Query(
        number,
        flags,
        data[12:end].lower(),
        kind,
        klass,
        data[12 : end + 4],
        edns is not None,
        SMALLEST_LIMIT if edns is None else min(max(edns.limit, SMALLEST_LIMIT), LARGEST_DATAGRAM),
    )
    if edns is not None and edns.version != 0:
        raise Malformed(respond(query, rcode=_BAD_VERSION))
    return query


def respond(query: Query, *, records: Sequence[bytes] = (), rcode: int = NO_ERROR, limit: int = 0) -> bytes:
    """The answer, of at most `limit` bytes (0: what the query allows); cut short when not all of `records` fit."""
    options = _opt_record(rcode) if query.edns else b""
    flags = _RESPONSE | _RECURSION_AVAILABLE | query.flags & _ECHOED | rcode & 0xF
    room = (limit or query.limit) - _HEADER.size - len(query.question) - len(options)
    if sum(map(len, records)) > room:
        flags |= _TRUNCATED
        records = _fitting(records, room)
    header = _HEADER.pack(query.id, flags, 1, len(records), 0, 1 if options else 0)
    return b"".join((header, query.question, *records, options))


def address_record(address: IPv4Address | IPv6Address, *, ttl: int) -> bytes:
    """An A or AAAA record of the name that was asked for; `ttl` in seconds."""
    return _record(TYPE_A if address.version == 4 else TYPE_AAAA, ttl, address.packed)


def pointer_record(name: bytes, *, ttl: int) -> bytes:
    """A PTR record of the name that was asked for, to a name as on the wire."""
    return _record(TYPE_PTR, ttl, name)


def encode_name(text: str) -> bytes | None:
    """A dotted name as it stands on the wire, in lower case; None for one that DNS cannot carry."""
    labels = [label.encode() for label in text.rstrip(".").split(".")]
    if not all(0 < len(label) <= _LONGEST_LABEL for label in labels):
        return None
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return name.lower() if len(name) <= _LONGEST_NAME else None


def is_single_label(name: bytes) -> bool:
    """Whether a name as on the wire has one label: a host, not a domain."""
    return len(name) > 1 and name[name[0] + 1] == 0


def with_id(message: bytes, number: int) -> bytes:
    return number.to_bytes(2, "big") + message[2:]


def answers_query(message: bytes, *, number: int, question: bytes) -> bool:
    """Whether a message is the answer to the query that was sent under that number with that question."""
    if len(message) < _HEADER.size + len(question):
        return False
    got, flags, questions, *_ = _HEADER.unpack_from(message)
    # Upper and lower case are one to DNS, and no server must change them, but some do.
    asked = message[12 : 12 + len(question)]
    return (
        (got, questions) == (number, 1)
        and bool(flags & _RESPONSE)
        and asked[:-4].lower() == question[:-4].lower()
        and asked[-4:] == question[-4:]
    )


def rcode_of(message: bytes) -> int:
    return message[3] & 0xF


def is_truncated(message: bytes) -> bool:
    return bool(message[2] & _TRUNCATED >> 8)


class _Edns(NamedTuple):
    limit: int
    version: int


def _find_edns(data: bytes, offset: int, count: int) -> _Edns | None:
    """The OPT record among `count` records from `offset` on. Raises ValueError, IndexError or struct.error."""
    if count > _MOST_RECORDS:
        raise ValueError("no query has that many records")
    found: _Edns | None = None
    for _ in range(count):
        end = _name_end(data, offset, pointers=True)
        kind, klass, ttl, length = _FIXED.unpack_from(data, end)
        if kind == TYPE_OPT:
            if found is not None or end != offset + 1:
                raise ValueError("more than one OPT, or not the root's")
            found = _Edns(klass, ttl >> 16 & 0xFF)
        offset = end + _FIXED.size + length
        if offset > len(data):
            raise ValueError("a record beyond the end")
    return found


def _name_end(data: bytes, offset: int, *, pointers: bool = False) -> int:
    """Where the name ends. Raises IndexError or ValueError."""
    start = offset
    while (length := data[offset]) != 0:
        if length > _LONGEST_LABEL:
            if pointers and length >= _POINTER:
                return offset + 2
            raise ValueError("neither a label nor a pointer to anything")
        offset += length + 1
        if offset - start >= _LONGEST_NAME:
            raise ValueError("a name of more than 255 bytes")
    return offset + 1


def _fitting(records: Sequence[bytes], room: int) -> list[bytes]:
    fitting: list[bytes] = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        fitting.append(record)
    return fitting


def _record(kind: int, ttl: int, data: bytes) -> bytes:
    return _NAME_OF_QUESTION + _FIXED.pack(kind, CLASS_IN, ttl, len(data)) + data


def _opt_record(rcode: int) -> bytes:
    return b"\0" + _FIXED.pack(TYPE_OPT, _OWN_LIMIT, rcode >> 4 << 24, 0)


def _bare(number: int, flags: int, rcode: int) -> bytes:
    """An answer without the question, which could not be read."""
    echoed = flags & (_OPCODE | _ECHOED)
    return _HEADER.pack(number, _RESPONSE | _RECURSION_AVAILABLE | echoed | rcode, 0, 0, 0, 0)
