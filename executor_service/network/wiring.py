"""Make one network namespace, wire it, pin it; attach and detach one that is pinned.

Nothing holds a new namespace until the pin, which is the last step: a failure, or the death of the process, at any step
before it leaves nothing behind, because the kernel then collects the namespace and with it both ends of the veths. All
calls block and leave the calling thread inside the namespace: give each a thread of its own that ends afterwards.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from executor_service.network import syscalls
from executor_service.network.pins import PinDirectory
from executor_service.network.rtnetlink import (
    Channel,
    Request,
    add_address,
    add_route,
    bring_up,
    delete_default_route,
    set_default_route,
)
from executor_service.network.sandbox import Endpoint
from executor_service.user_namespaces import Owner, network_namespace

_LOOPBACK = 1
_NO_ROUTE = frozenset({errno.ESRCH})


class Attachment(Protocol):
    """An interface of a sandbox, as its network's driver makes it."""

    @property
    def endpoint(self) -> Endpoint: ...

    def create(self, namespace: int) -> Sequence[Request]:
        """To be sent from the host's namespace: the interface is born inside `namespace` (a descriptor), and down."""

    def set_up(self, index: int) -> Sequence[Request]:
        """To be sent inside, before the interface, which has this index there, comes up."""

    def delete(self, host: Channel, inside: Channel) -> None:
        """Idempotent. Raises OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateways:
    """The endpoints by which the default routes go; None: there is no way out."""

    ipv4: Endpoint | None = None
    ipv6: Endpoint | None = None


def wire(
    pins: PinDirectory,
    token: str,
    attachments: Sequence[Attachment],
    gateways: Gateways,
    owner: Owner | None = None,
) -> None:
    """Make and pin a namespace with `lo` up, and with the attachments. It belongs to the node's own user namespace, or
    to `owner`. Raises OSError."""
    with ExitStack() as stack:
        host = stack.enter_context(Channel())
        if owner is None:
            syscalls.unshare_network()
        else:
            syscalls.enter_network(stack.enter_context(network_namespace(owner)))
        namespace = _opened(stack, syscalls.THREAD_NETWORK_NAMESPACE)
        inside = stack.enter_context(Channel())
        inside.send([bring_up(_LOOPBACK)])
        for attachment in attachments:
            _plug(host, inside, namespace, attachment)
        _route(inside, gateways, replace=False)
        pins.pin(token)


def attach(pins: PinDirectory, token: str, attachment: Attachment, gateways: Gateways) -> None:
    """Raises OSError, and then has detached it again."""
    with ExitStack() as stack:
        host = stack.enter_context(Channel())
        namespace = _opened(stack, pins.of(token))
        syscalls.enter_network(namespace)
        inside = stack.enter_context(Channel())
        try:
            _plug(host, inside, namespace, attachment)
            _route(inside, gateways, replace=True)
        except OSError:
            attachment.delete(host, inside)
            raise


def detach(pins: PinDirectory, token: str, attachment: Attachment, gateways: Gateways) -> None:
    """Idempotent. Raises OSError."""
    with ExitStack() as stack:
        host = stack.enter_context(Channel())
        syscalls.enter_network(_opened(stack, pins.of(token)))
        inside = stack.enter_context(Channel())
        attachment.delete(host, inside)
        _route(inside, gateways, replace=True)


def unplug(pins: PinDirectory, token: str, attachments: Sequence[Attachment]) -> None:
    """Delete interfaces before their namespace goes, which the kernel collects some time later. Idempotent. Raises
    OSError."""
    with ExitStack() as stack:
        host = stack.enter_context(Channel())
        if not pins.holds(token):
            return
        syscalls.enter_network(_opened(stack, pins.of(token)))
        inside = stack.enter_context(Channel())
        for attachment in attachments:
            attachment.delete(host, inside)


def _opened(stack: ExitStack, path: str | Path) -> int:
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, namespace)
    return namespace


def _plug(host: Channel, inside: Channel, namespace: int, attachment: Attachment) -> None:
    endpoint = attachment.endpoint
    # The gateway is given; a router advertisement, from whichever container, must not change it.
    Path("/proc/sys/net/ipv6/conf/default/accept_ra").write_bytes(b"0")
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_bytes(b"0" if endpoint.ipv6_address else b"1")
    host.send(attachment.create(namespace))
    index = socket.if_nametoindex(endpoint.interface)
    requests = (*attachment.set_up(index), *_addresses(endpoint, index), bring_up(index), *_spans(endpoint, index))
    inside.send(requests)


def _addresses(endpoint: Endpoint, index: int) -> list[Request]:
    addresses = (
        (endpoint.ipv4_address, endpoint.ipv4_prefix_length),
        (endpoint.ipv6_address, endpoint.ipv6_prefix_length),
    )
    return [add_address(index, address, length) for address, length in addresses if address]


def _spans(endpoint: Endpoint, index: int) -> list[Request]:
    spans = ((endpoint.ipv4_span, endpoint.ipv4_gateway), (endpoint.ipv6_span, endpoint.ipv6_gateway))
    return [add_route(index, span, gateway) for span, gateway in spans if span is not None]


def _route(inside: Channel, gateways: Gateways, *, replace: bool) -> None:
    requests = []
    if gateways.ipv4 is not None:
        requests.append(set_default_route(socket.if_nametoindex(gateways.ipv4.interface), gateways.ipv4.ipv4_gateway))
    elif replace:
        requests.append(delete_default_route(socket.AF_INET))
    if gateways.ipv6 is not None:
        if replace:
            # IPv6 would add a second one beside the first, not replace it by another interface's.
            inside.send([delete_default_route(socket.AF_INET6)], tolerate=_NO_ROUTE)
        requests.append(set_default_route(socket.if_nametoindex(gateways.ipv6.interface), gateways.ipv6.ipv6_gateway))
    elif replace:
        requests.append(delete_default_route(socket.AF_INET6))
    if requests:
        inside.send(requests, tolerate=_NO_ROUTE)
