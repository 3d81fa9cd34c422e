"""Make one network namespace, wire it, pin it.

Nothing holds the namespace until the pin, which is the last step: a failure, or the death of the process, at any step
before it leaves nothing behind, because the kernel then collects the namespace and with it both ends of the veth.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from executor_service.network import syscalls
from executor_service.network.pins import PinDirectory
from executor_service.network.rtnetlink import (
    Channel,
    Request,
    add_address,
    add_default_route,
    bring_up,
    create_veth,
    enable_hairpin,
)
from executor_service.network.sandbox import Endpoint

_LOOPBACK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Where the sandbox is plugged in: the bridge's index, the name of the veth's end on the host, bytes of MTU."""

    bridge: int
    host_interface: str
    mtu: int
    endpoint: Endpoint


def wire(pins: PinDirectory, token: str, attachment: Attachment | None) -> None:
    """Make and pin a namespace with `lo` up, and with the attachment if there is one. Raises OSError.

    The calling thread is left inside the new namespace: give it a thread of its own that ends afterwards."""
    with ExitStack() as stack:
        host = stack.enter_context(Channel())
        syscalls.unshare_network()
        namespace = os.open(syscalls.THREAD_NETWORK_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, namespace)
        inside = stack.enter_context(Channel())
        if attachment is None:
            inside.send([bring_up(_LOOPBACK)])
        else:
            # The gateway is given; a router advertisement, from whichever container, must not change it.
            Path("/proc/sys/net/ipv6/conf/default/accept_ra").write_bytes(b"0")
            host.send(_outside(attachment, namespace))
            inside.send(_inside(attachment.endpoint, socket.if_nametoindex(attachment.endpoint.interface)))
        pins.pin(token)


def _outside(attachment: Attachment, namespace: int) -> list[Request]:
    return [
        create_veth(
            name=attachment.host_interface,
            bridge=attachment.bridge,
            mtu=attachment.mtu,
            peer=attachment.endpoint.interface,
            peer_mac=attachment.endpoint.mac_address,
            namespace=namespace,
        ),
        enable_hairpin(attachment.host_interface),
    ]


def _inside(endpoint: Endpoint, index: int) -> list[Request]:
    return [
        bring_up(_LOOPBACK),
        add_address(index, endpoint.ipv4_address, endpoint.ipv4_prefix_length),
        add_address(index, endpoint.ipv6_address, endpoint.ipv6_prefix_length),
        bring_up(index),
        add_default_route(index, endpoint.ipv4_gateway),
        add_default_route(index, endpoint.ipv6_gateway),
    ]
