"""Paths of mounts: where in the container, and what part of a volume or an image."""

from __future__ import annotations

from api_service.validation.process import clean_path

_MAX_PATH = 4095  # bytes, PATH_MAX without its NUL

# What programs that show a container its own limits (lxcfs) put there.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)


def parse_destination(path: str) -> str:
    """The path inside the container, cleaned. Raises ValueError with a sentence."""
    _check_text(path)
    shown = repr(path[:100])
    if not path.startswith("/"):
        raise ValueError(f"{shown} is not an absolute path inside the container; begin it with '/'")
    if ".." in path.split("/"):
        raise ValueError(f"{shown} holds '..'; write the path without it")
    cleaned = clean_path(path)
    if cleaned == "/":
        raise ValueError(f"{shown} is the container's root, over which nothing can be mounted; choose a path below it")
    if (cleaned == "/proc" or cleaned.startswith("/proc/")) and cleaned not in _PROC_FILES:
        raise ValueError(f"{shown} is in /proc, which is the kernel's; choose a path outside")
    return cleaned


def parse_host_path(path: str) -> str:
    """A path of the node, cleaned. Raises ValueError with a sentence."""
    _check_text(path)
    if not path.startswith("/"):
        raise ValueError(f"{path[:100]!r} is not an absolute path of the node; begin it with '/'")
    if ".." in path.split("/"):
        raise ValueError(f"{path[:100]!r} holds '..'; write the path without it")
    return clean_path(path)


def parse_subpath(path: str) -> str:
    """Relative, as it is handed on. Raises ValueError with a sentence."""
    _check_text(path)
    if path.startswith("/"):
        raise ValueError(f"{path[:100]!r} is absolute; write it relative to the root of what is mounted")
    if ".." in path.split("/"):
        raise ValueError(f"{path[:100]!r} holds '..', which could lead out of what is mounted; write it without")
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _check_text(path: str) -> None:
    if not path:
        raise ValueError("is empty; give a path")
    if "\0" in path:
        raise ValueError("holds a NUL character, which no path can")
    if len(path.encode(errors="surrogatepass")) > _MAX_PATH:
        raise ValueError(f"is longer than {_MAX_PATH} bytes, the longest path there is")
