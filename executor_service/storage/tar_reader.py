"""Reads tar headers: V7, ustar, GNU (long names, base-256 numbers) and PAX, as hostile input.

Python's `tarfile` guesses where this refuses, and spends more on an entry. What an ambiguous header means is what Go's
archive/tar says, because that is what writes and reads images everywhere else. Sources: tar(5), POSIX pax, GNU tar
manual "Basic Tar Format". Raises InvalidArgument (CORRUPT_IMAGE) for everything malformed, ResourceExhausted for
more entries than allowed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Protocol

from common.errors import ResourceExhausted
from executor_service.storage.refusals import corrupt_image, shown

BLOCK = 512
_ZEROS = bytes(BLOCK)
_MAX_META = 1024 * 1024  # bytes of one PAX or GNU long-name body; Go's limit too
_XATTR = b"SCHILY.xattr."
_DECIMAL = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?[0-9]{1,20})(?:\.([0-9]{0,32}))?")
_MAX_TIME = 1 << 33  # seconds; beyond it no file system here can keep it


class Kind(Enum):
    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member. Names are the raw bytes of the archive, unchecked (a directory's without the `/` at its end). `size`
    is 0 for all but files; `mtime` is seconds and nanoseconds since 1970, (0, 0) when it is out of range, as Docker
    bounds it."""

    name: bytes
    kind: Kind
    link: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0  # bytes
    mtime: tuple[int, int] = (0, 0)
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


class ByteSource(Protocol):
    """Where a tar comes from."""

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""

    def skip(self, size: int) -> None:
        """Pass over `size` bytes; beyond the end is CORRUPT_IMAGE."""


@dataclass(slots=True)
class _Meta:
    """What the headers before a member say about it."""

    name: bytes = b""
    link: bytes = b""
    pax: dict[bytes, bytes] = field(default_factory=dict)


class TarReader:
    """Iterate it for the members; read a file's `content()` before asking for the next one, or it is passed over.
    `ended` tells after the iteration whether the end-of-archive mark was seen."""

    def __init__(self, source: ByteSource, *, max_entries: int) -> None:
        self._source = source
        self._left_of_content = 0
        self._padding = 0
        self._headers_left = max_entries
        self._max_entries = max_entries
        self.ended = False

    @property
    def entries(self) -> int:
        """How many headers were read, those of extended headers counted."""
        return self._max_entries - self._headers_left

    def __iter__(self) -> Iterator[Entry]:
        meta = _Meta()
        while (block := self._next_header()) is not None:
            flag = block[156:157]
            if flag in b"xgLK":
                self._read_meta(block, flag, meta)
                continue
            entry = _entry(block, flag, meta)
            meta = _Meta()
            self._left_of_content = entry.size
            self._padding = -entry.size % BLOCK
            yield entry
            self._source.skip(self._left_of_content + self._padding)
            self._left_of_content = self._padding = 0
        if meta != _Meta():
            raise corrupt_image("tar: it ends after an extended header, before the member that belongs to it")

    def content(self, *, chunk: int = 1 << 18) -> Iterator[bytes]:
        """What the current file holds, piece by piece."""
        while self._left_of_content:
            data = self._source.read(min(chunk, self._left_of_content))
            if not data:
                raise corrupt_image("tar: truncated within a file's content")
            self._left_of_content -= len(data)
            yield data

    def _next_header(self) -> bytes | None:
        block = self._source.read(BLOCK)
        if block == _ZEROS:
            self.ended = True
            block = self._source.read(BLOCK)
            if block not in (b"", _ZEROS):
                raise corrupt_image("tar: a single block of zeros between two members")
            return None
        if not block:
            return None
        if len(block) < BLOCK:
            raise corrupt_image("tar: truncated within a header")
        self._headers_left -= 1
        if self._headers_left < 0:
            raise ResourceExhausted(
                f"tar: more than {self._max_entries} entries, the limit for one archive", reason="TOO_MANY_ENTRIES"
            )
        _check_sum(block)
        return block

    def _read_meta(self, block: bytes, flag: bytes, meta: _Meta) -> None:
        size = _number(block[124:136], "size")
        if not 0 <= size <= _MAX_META:
            raise corrupt_image(f"tar: an extended header of {size} bytes; the limit is {_MAX_META}")
        body = self._source.read(size)
        if len(body) < size:
            raise corrupt_image("tar: truncated within an extended header")
        self._source.skip(-size % BLOCK)
        if flag == b"x":
            meta.pax.update(_pax_records(body))
        elif flag == b"L":
            meta.name = body.partition(b"\0")[0]
        elif flag == b"K":
            meta.link = body.partition(b"\0")[0]
        # A global header ("g") is read and ignored, as Docker does (git puts its commit there).


def _entry(block: bytes, flag: bytes, meta: _Meta) -> Entry:
    pax = meta.pax
    name = meta.name or pax.get(b"path") or _name(block)
    if flag == b"S" or (pax and any(key.startswith(b"GNU.sparse.") for key in pax)):
        raise corrupt_image(f"tar: {shown(name)} is a sparse file, which is not supported; write it without --sparse")
    kind = _KINDS.get(flag)
    if kind is None:
        raise corrupt_image(f"tar: {shown(name)} has the entry type {flag!r}, which is not supported")
    if flag == b"\0" and name.endswith(b"/"):
        kind = Kind.DIRECTORY
    if kind is Kind.DIRECTORY:
        name = name[:-1] if len(name) > 1 and name.endswith(b"/") else name
    is_device = kind in (Kind.CHARACTER, Kind.BLOCK)
    return Entry(
        name=name,
        kind=kind,
        link=(meta.link or pax.get(b"linkpath") or _text(block[157:257]))
        if kind in (Kind.HARDLINK, Kind.SYMLINK)
        else b"",
        mode=_repeated_number(block[100:108], "mode") & 0o7777,
        uid=_owner(block[108:116], pax, b"uid"),
        gid=_owner(block[116:124], pax, b"gid"),
        size=_size(block, pax, name) if kind is Kind.FILE else 0,
        mtime=_mtime(block, pax),
        major=_device_number(block[329:337], 1 << 12) if is_device else 0,
        minor=_device_number(block[337:345], 1 << 20) if is_device else 0,
        xattrs={key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)} if pax else {},
    )


def byte_sum(block: bytes) -> int:
    """The sum of at most 512 bytes. Adler-32's low half is one more than it modulo 65521, which 257 of them reach."""
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _check_sum(block: bytes) -> None:
    stored = _number(block[148:156], "checksum")
    unsigned = byte_sum(block) - byte_sum(block[148:156]) + 8 * 0x20
    if stored == unsigned:
        return
    # Some historic tars summed signed characters.
    rest = block[:148] + block[156:]
    if stored != unsigned - 256 * sum(byte > 127 for byte in rest):
        raise corrupt_image("tar: a header's checksum is wrong, or this is no tar archive")


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (
        prefix := _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
    ):
        return prefix + b"/" + name
    return name


def _number(raw: bytes, what: str) -> int:
    """Octal text, or GNU's base-256 when the first bit is set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False) & ~(0x80 << 8 * (len(raw) - 1))
        return value if raw[0] == 0x80 else value - (1 << (8 * len(raw) - 1))
    digits = raw.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise corrupt_image(f"tar: a header's {what} is {digits!r}, not a number")
    return int(digits, 8)


# Of modes, owners and times an archive has a few values, in each of its entries.
_repeated_number = lru_cache(maxsize=1024)(_number)


def _owner(raw: bytes, pax: Mapping[bytes, bytes], key: bytes) -> int:
    value = _decimal(text, key) if pax and (text := pax.get(key)) else _repeated_number(raw, key.decode())
    if not 0 <= value < 0xFFFFFFFF:
        raise corrupt_image(f"tar: the {key.decode()} {value} of an entry is out of range")
    return value


def _size(block: bytes, pax: Mapping[bytes, bytes], name: bytes) -> int:
    size = _decimal(text, b"size") if (text := pax.get(b"size")) else _number(block[124:136], "size")
    if not 0 <= size < 1 << 62:
        raise corrupt_image(f"tar: {shown(name)} has a size of {size} bytes")
    return size


def _decimal(text: bytes, key: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        raise corrupt_image(f"tar: the extended header's {key.decode()} is {shown(text)}, not a number")
    return int(text)


def _device_number(raw: bytes, limit: int) -> int:
    value = _number(raw, "device number")
    if not 0 <= value < limit:
        raise corrupt_image(f"tar: a device number of {value} is out of range")
    return value


def _mtime(block: bytes, pax: Mapping[bytes, bytes]) -> tuple[int, int]:
    nanoseconds = 0
    if text := pax.get(b"mtime"):
        match = _TIME.fullmatch(text)
        if match is None:
            raise corrupt_image(f"tar: the extended header's mtime is {shown(text)}, not a time")
        seconds = int(match[1])
        nanoseconds = int((match[2] or b"")[:9].ljust(9, b"0"))
    else:
        seconds = _repeated_number(block[136:148], "mtime")
    return (seconds, nanoseconds) if 0 <= seconds < _MAX_TIME else (0, 0)


def _pax_records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`<length> <key>=<value>\\n`, the length counting the whole record."""
    position = 0
    while position < len(body):
        space = body.find(b" ", position, position + 10)
        digits = body[position:space]
        if space < 0 or not _DECIMAL.fullmatch(digits):
            raise corrupt_image("tar: a malformed extended header")
        end = position + int(digits)
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not space + 1 < end <= len(body) or body[end - 1 : end] != b"\n" or not equals or not key:
            raise corrupt_image("tar: a malformed extended header")
        if b"\0" in key or (b"\0" in value and not key.startswith(_XATTR)):
            raise corrupt_image(f"tar: the extended header's {shown(key)} holds a NUL byte")
        yield key, value
        position = end
