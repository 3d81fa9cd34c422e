"""Writes the one dialect of tar that GNU tar is given: every name, number and attribute spelled in a single way.

Long names go into GNU `L`/`K` headers, which carry raw bytes (a PAX `path` would be converted between character sets);
attributes and fractions of a second into a PAX header, in GNU tar's escaping of attribute names.
"""

from __future__ import annotations

import struct

from executor_service.storage.tar_reader import BLOCK, Entry, Kind, byte_sum

END = bytes(2 * BLOCK)
_NAME_FIELD = 100
_LONG_NAME = b"././@LongLink"
# Name, mode, owner, group, size, time, checksum, type, link, magic, device; what is shorter ends in NUL characters.
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s64x8s8s167x")


def header(entry: Entry) -> bytes:
    """All header blocks of `entry`; its content, padded by `padding`, is to follow."""
    name = entry.name + b"/" if entry.kind is Kind.DIRECTORY else entry.name
    blocks = _attributes(entry)
    if len(name) > _NAME_FIELD:
        blocks += _extension(b"L", name + b"\0")
        name = name[:_NAME_FIELD]
    link = entry.link
    if len(link) > _NAME_FIELD:
        blocks += _extension(b"K", link + b"\0")
        link = link[:_NAME_FIELD]
    return blocks + _block(name, entry.kind.value, entry=entry, size=entry.size, link=link)


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _attributes(entry: Entry) -> bytes:
    records = b""
    if entry.mtime[1]:
        records += _record(b"mtime", b"%d.%09d" % entry.mtime)
    for key, value in entry.xattrs.items():
        escaped = key.replace(b"%", b"%25").replace(b"=", b"%3D")
        records += _record(b"SCHILY.xattr." + escaped, value)
    return _extension(b"x", records) if records else b""


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return b"%d" % length + body


_NOBODY = Entry(name=b"", kind=Kind.FILE, mode=0o600)


def _extension(flag: bytes, body: bytes) -> bytes:
    return _block(_LONG_NAME, flag, entry=_NOBODY, size=len(body), link=b"") + body + padding(len(body))


def _block(name: bytes, flag: bytes, *, entry: Entry, size: int, link: bytes) -> bytes:
    block = _HEADER.pack(
        name,
        b"%07o" % entry.mode,
        _number(entry.uid, 8),
        _number(entry.gid, 8),
        _number(size, 12),
        _number(entry.mtime[0], 12),
        b" " * 8,
        flag,
        link,
        b"ustar\x0000",
        b"%07o" % entry.major,
        b"%07o" % entry.minor,
    )
    return block[:148] + b"%06o\0 " % byte_sum(block) + block[156:]


def _number(value: int, width: int) -> bytes:
    if value < 1 << 3 * (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value | 0x80 << 8 * (width - 1)).to_bytes(width, "big")
