"""Addresses that services listen on and dial: `unix:///absolute/path` or `host:port`."""

from __future__ import annotations

import socket
from ipaddress import ip_address


def check_address(address: str) -> None:
    """Raises ValueError for what is neither."""
    if is_unix(address):
        if not address.startswith("unix:///"):
            raise ValueError(f"{address!r}: write a unix socket as unix:///absolute/path")
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 2**16) or (":" in host and host[0] != "["):
        raise ValueError(f"{address!r}: write an address as host:port or unix:///absolute/path")


def is_unix(address: str) -> bool:
    return address.startswith("unix:")


def is_listened_on(address: str) -> bool:
    """Whether somebody listens there, on a unix socket, which is known at once; elsewhere False."""
    if not is_unix(address):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            probe.connect(address.removeprefix("unix://"))
    except BlockingIOError:  # so many are waiting to be accepted: unix(7)
        return True
    except OSError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the `host:port`."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
