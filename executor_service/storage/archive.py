"""A spooled image archive as a directory of members: nothing of it is unpacked but what is asked for."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import BinaryIO

from executor_service.storage.image_config import MAX_JSON, parse_json
from executor_service.storage.refusals import corrupt_image, shown
from executor_service.storage.spool import size_of
from executor_service.storage.streams import Window
from executor_service.storage.tar_reader import Kind, TarReader
from executor_service.storage.unpack import Blob

_MAX_MEMBERS = 100_000
_MAX_LINKS = 8  # followed from one name; old `docker save` links equal layers to each other


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    offset: int
    size: int
    link: str = ""  # the member meant, when this is a link


class Archive:
    """The members of a tar by their normalised names. Names are only keys here, never paths of this host."""

    def __init__(self, file: BinaryIO) -> None:
        """Reads all headers: blocks. Raises InvalidArgument (CORRUPT_IMAGE)."""
        self._file = file
        self._members: dict[str, _Member] = {}
        self._below = ""
        source = SeekingSource(file)
        for entry in TarReader(source, max_entries=_MAX_MEMBERS):
            name = _key(entry.name)
            link = ""
            if entry.kind is Kind.SYMLINK:
                link = _key(posixpath.join(posixpath.dirname(name), entry.link.decode(errors="replace")).encode())
            elif entry.kind is Kind.HARDLINK:
                link = _key(entry.link)
            elif entry.kind is not Kind.FILE:
                continue
            self._members[name] = _Member(offset=source.position, size=entry.size, link=link)

    def enter_sole_directory(self) -> None:
        """When everything lies in one directory, take that for the root, from here on."""
        (first, *others) = {name.partition("/")[0] for name in self._members} or {""}
        if not others and first not in self._members:
            self._below = f"{first}/"

    def __contains__(self, name: str) -> bool:
        return self._below + _key(_raw(name)) in self._members

    def read_json(self, name: str) -> object:
        return parse_json(self.read(name), f"archive: {shown(_raw(name))}")

    def read(self, name: str) -> bytes:
        """The whole of a small member, at most `MAX_JSON` bytes."""
        blob = self.blob(name)
        if blob.size > MAX_JSON:
            raise corrupt_image(f"archive: {shown(_raw(name))} has {blob.size} bytes; the limit is {MAX_JSON}")
        return Window(blob.file, offset=blob.offset, size=blob.size).readall()

    def blob(self, name: str, *, digest: str | None = None) -> Blob:
        key = self._below + _key(_raw(name))
        for _ in range(_MAX_LINKS):
            member = self._members.get(key)
            if member is None:
                raise corrupt_image(f"archive: {shown(_raw(name))} is not in it")
            if not member.link:
                return Blob(file=self._file, offset=member.offset, size=member.size, digest=digest)
            key = member.link
        raise corrupt_image(f"archive: {shown(_raw(name))} is a link to a link, and so on")


def _raw(name: str) -> bytes:
    """Of a name out of a JSON document, which may hold what no text can be encoded with."""
    return name.encode(errors="backslashreplace")


def _key(name: bytes) -> str:
    return posixpath.normpath("/" + name.decode(errors="backslashreplace"))[1:]


class SeekingSource:
    """A `ByteSource` that passes over contents without reading them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = size_of(file)
        self.position = 0

    def read(self, size: int) -> bytes:
        self._file.seek(self.position)
        data = self._file.read(size)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        if self.position + size > self._end:
            raise corrupt_image("archive: truncated within a member")
        self.position += size
