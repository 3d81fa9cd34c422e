"""User namespaces, made by a small program: the kernel gives one only to a process with a single thread.

The namespace lives as long as a descriptor of it, or something that belongs to it, is there. Everything here blocks.
Source: user_namespaces(7), ioctl_ns(2).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from executor_service.run import MINIMAL_ENVIRONMENT
from executor_service.user_mapping import UserMapping

_NS_GET_USERNS = 0xB701
_ENDS = 10.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a network namespace shall be: a user namespace with this mapping, a new one or that of the process
    `beside`."""

    mapping: UserMapping
    beside: int | None = None


@contextmanager
def user_namespace(mapping: UserMapping) -> Iterator[int]:
    """A descriptor of a new one. Raises OSError."""
    with _held(["unshare", "--user"]) as pid:
        _write_maps(pid, mapping)
        descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def network_namespace(owner: Owner) -> Iterator[int]:
    """A descriptor of a new network namespace that belongs to such a user namespace. Raises OSError."""
    new = ["unshare", "--user", "--net"]
    if owner.beside is not None:
        new = ["nsenter", f"--user=/proc/{owner.beside}/ns/user", "unshare", "--net"]
    with _held(new) as pid:
        if owner.beside is None:
            _write_maps(pid, owner.mapping)
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def owner_of(namespace: Path) -> Iterator[int]:
    """A descriptor of the user namespace that the pinned namespace belongs to. Raises OSError."""
    pinned = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        descriptor = fcntl.ioctl(pinned, _NS_GET_USERNS)
    finally:
        os.close(pinned)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_maps(pid: int, mapping: UserMapping) -> None:
    for name, content in (("uid_map", mapping.uid_map), ("gid_map", mapping.gid_map)):
        Path(f"/proc/{pid}/{name}").write_text(content)


@contextmanager
def _held(entering: Sequence[str]) -> Iterator[int]:
    """The id of a process that is in new namespaces while the block runs."""
    with subprocess.Popen(
        [*entering, "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=dict(MINIMAL_ENVIRONMENT),
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            child.stdin.write(b"x")
            if child.stdout.read(1) != b"x":
                said = child.stderr.read().decode(errors="replace").strip()
                raise PermissionError(1, f"a user namespace cannot be made: {said}")
            yield child.pid
        finally:
            child.stdin.close()
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(timeout=_ENDS)
    except subprocess.TimeoutExpired:
        child.kill()
