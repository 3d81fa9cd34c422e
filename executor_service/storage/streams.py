"""Byte streams out of spooled archives: windows on a file, decompressed by their first bytes, hashed on the way.

Everything here blocks and runs in worker threads. Formats: gzip (RFC 1952), zstd (RFC 8878), and bzip2 and xz, which
Docker takes too; else plain.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard
from isal import igzip_threaded, isal_zlib

from common.errors import ResourceExhausted
from executor_service.storage.refusals import corrupt_image

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 1 << 18  # bytes; isal has a dozen of them for each stream, and more would not make it faster
_MAX_ZSTD_WINDOW = 1 << 27  # bytes; what the zstd program itself accepts without --long
_MAX_XZ_MEMORY = 1 << 27  # bytes; `xz -9` wants half of it
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))  # may come first
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\0"

# isal has no annotations.
_open_gzip = cast("Callable[..., AbstractContextManager[BinaryIO]]", igzip_threaded.open)
_GzipError = cast("type[Exception]", isal_zlib.error)


class Window(io.RawIOBase):
    """`size` bytes of a file from `offset`, read without moving the file's own position. With `algorithm`, everything
    that was read is hashed; `digest()` reads the rest."""

    def __init__(self, file: BinaryIO, *, offset: int, size: int, algorithm: str | None = None) -> None:
        super().__init__()
        self._descriptor = file.fileno()
        self._position = offset
        self._end = offset + size
        self._hash = hashlib.new(algorithm, usedforsecurity=True) if algorithm else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)[: max(0, self._end - self._position)]
        count = os.preadv(self._descriptor, [view], self._position) if view else 0
        self._position += count
        if self._hash is not None:
            self._hash.update(view[:count])
        return count

    @property
    def is_packed(self) -> bool:
        """Whether `decompressed` would yield anything but the window itself."""
        return self.starts_with(_GZIP, _ZSTD, *_ZSTD_SKIPPABLE, _BZIP2, _XZ)

    def starts_with(self, *magics: bytes) -> bool:
        longest = max(map(len, magics))
        return os.pread(self._descriptor, min(longest, self._end - self._position), self._position).startswith(magics)

    def digest(self) -> str:
        """Lower-hex digest of the whole window."""
        assert self._hash is not None
        buffer = bytearray(_CHUNK)
        while self.readinto(buffer):
            pass
        return self._hash.hexdigest()


class _XzReader(io.RawIOBase):
    """Streams one after the other, as xz(1) reads them. `lzma.LZMAFile` takes as much memory as a header asks for."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window
        self._unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        while True:
            packed = b""
            if self._unpacker.eof:
                packed = self._unpacker.unused_data.lstrip(b"\0") or self._window.read(_CHUNK) or b""
                if not packed:
                    return 0
                self._unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
            elif self._unpacker.needs_input and not (packed := self._window.read(_CHUNK) or b""):
                raise EOFError("it ends in the middle of a stream")
            if plain := self._unpacker.decompress(packed, len(view)):
                view[: len(plain)] = plain
                return len(plain)


@contextmanager
def decompressed(window: Window) -> Iterator[BinaryIO]:
    """The window's content, whatever it is packed with. Broken packing raises CORRUPT_IMAGE within the block."""
    try:
        if window.starts_with(_GZIP):
            with _open_gzip(window, "rb", threads=1, block_size=_CHUNK) as plain:
                yield plain
        elif window.starts_with(_ZSTD, *_ZSTD_SKIPPABLE):
            unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
            with unpacker.stream_reader(
                cast("BinaryIO", window), read_size=_CHUNK, read_across_frames=True, closefd=False
            ) as plain:
                yield plain
        elif window.starts_with(_BZIP2):
            with bz2.open(cast("BinaryIO", window)) as plain:
                yield cast("BinaryIO", plain)
        elif window.starts_with(_XZ):
            yield cast("BinaryIO", io.BufferedReader(_XzReader(window), _CHUNK))
        else:
            yield cast("BinaryIO", window)
    except (EOFError, zlib.error, _GzipError, zstandard.ZstdError, lzma.LZMAError) as error:
        raise corrupt_image(f"archive: its compressed data is broken: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip.BadGzipFile and its kin
            raise corrupt_image(f"archive: its compressed data is broken: {error}") from error
        raise


class HashingSource:
    """A `ByteSource` over a stream: buffers it, counts it against `max_bytes`, and hashes it (SHA-256) as it is read.

    `check` is called with every refill and stops the work by raising.
    """

    def __init__(self, stream: BinaryIO, *, max_bytes: int, check: Callable[[], None]) -> None:
        self._stream = stream
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._check = check
        self._hash = hashlib.sha256()
        self._buffer = b""
        self._position = 0

    def read(self, size: int) -> bytes:
        end = self._position + size
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        pieces = [self._buffer[self._position :]]
        missing = size - len(pieces[0])
        while missing and self._refill():
            pieces.append(self._buffer[:missing])
            self._position = len(pieces[-1])
            missing -= self._position
        if missing:
            self._buffer, self._position = b"", 0
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        while size:
            data = self.read(min(size, _CHUNK))
            if not data:
                raise corrupt_image("tar: truncated within a member")
            size -= len(data)

    def digest(self) -> str:
        """`sha256:<hex>` of the whole stream, whatever follows the last thing read included."""
        while self._refill():
            pass
        return f"sha256:{self._hash.hexdigest()}"

    def _refill(self) -> bool:
        self._check()
        self._buffer, self._position = self._stream.read(_CHUNK) or b"", 0
        self._left -= len(self._buffer)
        if self._left < 0:
            raise ResourceExhausted(
                f"image: a layer unpacks to more than {self._max_bytes} bytes, the limit of this node",
                reason="IMAGE_TOO_LARGE",
            )
        self._hash.update(self._buffer)
        return bool(self._buffer)
