"""Where an etcd is, who we are there, and which of its keys are ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.errors import FailedPrecondition


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdTarget:
    """`endpoints`: `host:port` of its members. `authority`, `certificate` and `key` are PEM files; without `authority`
    nothing is encrypted. `user` empty: no authentication. Files are read again whenever a connection is made."""

    endpoints: tuple[str, ...]
    prefix: str = "/slipway/"
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str = ""
    password_file: Path | None = None

    def password(self) -> str:
        """Raises FailedPrecondition."""
        return read_file(self.password_file).decode().rstrip("\n") if self.password_file is not None else ""


def read_file(path: Path) -> bytes:
    """Raises FailedPrecondition."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            f"{path}: cannot be read ({error.strerror}); it has to be readable for the user of this service",
            reason="FILE_UNREADABLE",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRange:
    """Keys from `begin` to before `end`; those of entries begin with `prefix`, which entries do not show."""

    begin: bytes
    end: bytes
    prefix: bytes

    def name(self, key: bytes) -> str | None:
        """None for a key that is no entry's."""
        return key.removeprefix(self.prefix).decode() if key.startswith(self.prefix) else None


@dataclass(frozen=True, slots=True)
class Layout:
    """Our keys. `head` is written by every commit, so its revision is the last commit's; it lies beside the records, so
    that one watch tells of both."""

    prefix: str

    @property
    def head(self) -> bytes:
        return f"{self.prefix}head".encode()

    @property
    def records(self) -> KeyRange:
        return KeyRange(begin=self.head, end=after_prefix(self.record("")), prefix=self.record(""))

    @property
    def claims(self) -> KeyRange:
        return KeyRange(begin=self.claim(""), end=after_prefix(self.claim("")), prefix=self.claim(""))

    @property
    def replicas(self) -> KeyRange:
        return KeyRange(begin=self.replica(""), end=after_prefix(self.replica("")), prefix=self.replica(""))

    def record(self, key: str) -> bytes:
        return f"{self.prefix}records/{key}".encode()

    def claim(self, name: str) -> bytes:
        return f"{self.prefix}claims/{name}".encode()

    def word(self, name: str) -> bytes:
        """What the last holder of the claim has left to the next one."""
        return f"{self.prefix}words/{name}".encode()

    def replica(self, replica: str) -> bytes:
        return f"{self.prefix}replicas/{replica}".encode()

    def slot(self, lease: int, number: int) -> bytes:
        """See `transaction`."""
        return f"{self.prefix}commits/{lease:016x}/{number}".encode()


def after_prefix(prefix: bytes) -> bytes:
    """The first key after all that begin with it."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
