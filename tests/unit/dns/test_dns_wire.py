"""DNS messages: what we write is read by dnspython as it was meant, and nothing that is sent to us does harm."""

from __future__ import annotations

from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_service.dns import wire
from executor_service.dns.wire import Malformed, address_record, encode_name, parse_query, pointer_record, respond


def question(name: str, kind: str = "A", *, use_edns: int = -1, payload: int = 1232) -> bytes:
    query = dns.message.make_query(name, kind, id=0x4321)  # the same in each run: it is in the names of tests
    query.use_edns(use_edns, payload=payload)
    return query.to_wire()


def records(count: int) -> list[bytes]:
    return [address_record(ip_address(f"10.0.{number // 250}.{number % 250 + 1}"), ttl=5) for number in range(count)]


def test_a_query_is_read_as_it_was_asked() -> None:
    query = parse_query(question("Web.MyNet", "AAAA", use_edns=0, payload=1400))
    assert query.name == b"\x03web\x05mynet\x00"
    assert (query.type, query.klass, query.edns, query.limit) == (wire.TYPE_AAAA, wire.CLASS_IN, True, 1400)
    plain = parse_query(question("web"))
    assert (plain.edns, plain.limit) == (False, 512)


def test_an_answer_says_what_was_asked_and_what_is_known() -> None:
    asked = question("wEb")
    message = dns.message.from_wire(respond(parse_query(asked), records=records(2)))
    assert dns.message.from_wire(asked).is_response(message)
    assert message.question[0].name.to_text() == "wEb."  # the very bytes: some resolvers compare the case
    assert [(rrset.ttl, sorted(map(str, rrset))) for rrset in message.answer] == [(5, ["10.0.0.1", "10.0.0.2"])]
    assert message.flags & dns.flags.RA and message.flags & dns.flags.RD and not message.flags & dns.flags.TC
    assert message.edns < 0


def test_ipv6_and_pointer_records() -> None:
    query = parse_query(question("web", "AAAA"))
    message = dns.message.from_wire(respond(query, records=[address_record(ip_address("fd00::7"), ttl=5)]))
    assert [str(record) for record in message.answer[0]] == ["fd00::7"]
    name = encode_name("web.mynet")
    assert name is not None
    query = parse_query(question("1.0.0.10.in-addr.arpa", "PTR"))
    message = dns.message.from_wire(respond(query, records=[pointer_record(name, ttl=5)]))
    assert [str(record) for record in message.answer[0]] == ["web.mynet."]


@pytest.mark.parametrize(
    ("use_edns", "payload", "limit", "fits"),
    [(-1, 4096, 512, 30), (0, 100, 512, 30), (0, 1232, 1232, 75), (0, 65535, 4096, 254)],
)
def test_what_does_not_fit_is_cut_at_a_record_and_says_so(use_edns: int, payload: int, limit: int, fits: int) -> None:
    query = parse_query(question("web", use_edns=use_edns, payload=payload))
    answer = respond(query, records=records(300))
    message = dns.message.from_wire(answer)
    assert len(answer) <= limit
    assert message.flags & dns.flags.TC
    assert sum(map(len, message.answer)) == fits
    whole = dns.message.from_wire(respond(query, records=records(300), limit=wire.LARGEST_MESSAGE))
    assert not whole.flags & dns.flags.TC
    assert sum(map(len, whole.answer)) == 300


def test_edns_is_answered_with_edns_and_only_version_0() -> None:
    message = dns.message.from_wire(respond(parse_query(question("web", use_edns=0))))
    assert (message.edns, message.payload) == (0, 1232)
    with pytest.raises(Malformed) as refused:
        parse_query(question("web", use_edns=1))
    assert dns.message.from_wire(refused.value.answer).rcode() == dns.rcode.BADVERS


def changed(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


QUERY = question("web")
NOT_IMPLEMENTED, FORMAT_ERROR = dns.rcode.NOTIMP, dns.rcode.FORMERR


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (b"", None),
        (QUERY[:11], None),
        (changed(QUERY, 2, b"\x80\x00"), None),  # an answer
        (changed(QUERY, 2, b"\x28\x00"), NOT_IMPLEMENTED),  # an update
        (changed(QUERY, 4, b"\x00\x00"), FORMAT_ERROR),  # no question
        (changed(QUERY, 4, b"\x00\x02"), FORMAT_ERROR),
        (QUERY[:-1], FORMAT_ERROR),
        (changed(QUERY, 12, b"\xc0\x0c"), FORMAT_ERROR),  # a name that points at itself
        (changed(QUERY, 12, b"\x40"), FORMAT_ERROR),
        (QUERY[:12] + b"\x3f" + bytes(20), FORMAT_ERROR),  # a label beyond the end
        (QUERY[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", FORMAT_ERROR),  # 257 bytes
        (changed(QUERY, 10, b"\x00\x01"), FORMAT_ERROR),  # a record that is not there
        (changed(QUERY, 6, b"\xff\xff"), FORMAT_ERROR),
        (changed(QUERY, 10, b"\x00\x01") + b"\0\0\x29\x04\xd0\0\0\0\0\0\xff", FORMAT_ERROR),  # 255 bytes of options
        (changed(QUERY, 10, b"\x00\x02") + b"\0\0\x29\x04\xd0\0\0\0\0\0\0" * 2, FORMAT_ERROR),  # two OPT
    ],
)
def test_what_cannot_be_answered_gets_its_code_or_silence(data: bytes, rcode: int | None) -> None:
    with pytest.raises(Malformed) as refused:
        parse_query(data)
    if rcode is None:
        assert refused.value.answer == b""
    else:
        message = dns.message.from_wire(refused.value.answer)
        assert (message.rcode(), message.id) == (rcode, int.from_bytes(data[:2], "big"))


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: QUERY[:12] + tail))
def test_any_bytes_are_a_query_or_malformed(data: bytes) -> None:
    try:
        query = parse_query(data)
    except Malformed as error:
        assert len(error.answer) <= max(len(data), 12) + 23
    else:
        assert dns.message.from_wire(respond(query, records=records(3))).id == query.id


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web", b"\x03web\0"),
        ("Web.Net.", b"\x03web\x03net\0"),
        ("", None),
        ("a..b", None),
        ("a" * 64, None),
        (".".join(["a" * 63] * 4), None),
    ],
)
def test_names(text: str, name: bytes | None) -> None:
    assert encode_name(text) == name


def test_an_answer_is_taken_only_for_its_own_question() -> None:
    asked = changed(QUERY, 0, b"\x12\x34")
    answer = respond(parse_query(asked), records=records(1))
    own = QUERY[12:]
    assert wire.answers_query(answer, number=0x1234, question=own)
    assert wire.answers_query(answer.replace(b"web", b"WEB", 1), number=0x1234, question=own)
    assert not wire.answers_query(answer, number=0x1235, question=own)
    assert not wire.answers_query(asked, number=0x1234, question=own)
    assert not wire.answers_query(answer, number=0x1234, question=question("wob")[12:])
    assert not wire.answers_query(answer, number=0x1234, question=question("web", "AAAA")[12:])
    assert not wire.answers_query(answer[:11], number=0x1234, question=own)
