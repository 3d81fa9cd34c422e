"""Make one network namespace, wire it, pin it; attach and detach one that is pinned.

Nothing holds a new namespace until the pin, which is the last step: a failure, or the death of the process, at any step
before it leaves nothing behind, because the kernel then collects the namespace and with it both ends of the veths. A
bare one, made ahead of time, is furnished after its pin, and let go whole when that fails or the process dies. All
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
    create_bare_veth,
    delete_default_route,
    set_default_route,
)
from executor_service.network.sandbox import Endpoint
from executor_service.user_namespaces import Owner, network_namespace

_LOOPBACK = 1
_FIRST_INTERFACE = "eth0"
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


class Adoptable(Attachment, Protocol):
    """One that can be an interface which was made ahead: see `wire_bare`."""

    def adopt(self) -> Sequence[Request]:
        """In the place of `create`."""

    def adopt_inside(self, index: int) -> Sequence[Request]:
        """Before `set_up`."""


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
        namespace, inside = _new_namespace(stack, owner)
        for attachment in attachments:
            _plug(host, inside, namespace, attachment)
        _route(inside, gateways, replace=False)
        pins.pin(token)


def wire_bare(pins: PinDirectory, token: str, host_interface: str, owner: Owner | None = None) -> None:
    """The same with the interface of a sandbox that has one, on no network: what takes longest when many are made, and
    waits for the RTNL lock most often. Raises OSError."""
    with ExitStack() as stack:
        host = stack.enter_context(Channel())
        namespace, _ = _new_namespace(stack, owner)
        _settle("default", "accept_ra", on=False)
        host.send([create_bare_veth(name=host_interface, peer=_FIRST_INTERFACE, namespace=namespace)])
        pins.pin(token)


def furnish(pins: PinDirectory, token: str, first: Adoptable, others: Sequence[Attachment], gateways: Gateways) -> None:
    """Put what `wire_bare` made on its networks. Raises OSError."""
    with ExitStack() as stack:
        host = stack.enter_context(Channel())
        namespace = _opened(stack, pins.of(token))
        syscalls.enter_network(namespace)
        inside = stack.enter_context(Channel())
        _settle(_FIRST_INTERFACE, "disable_ipv6", on=not first.endpoint.ipv6_address)
        host.send(first.adopt())
        index = socket.if_nametoindex(_FIRST_INTERFACE)
        inside.send([*first.adopt_inside(index), *_set_up(first, index)])
        for attachment in others:
            _plug(host, inside, namespace, attachment)
        _route(inside, gateways, replace=False)


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


def _new_namespace(stack: ExitStack, owner: Owner | None) -> tuple[int, Channel]:
    """A descriptor of it and a channel inside; the thread is there too. `lo` is up."""
    if owner is None:
        syscalls.unshare_network()
    else:
        syscalls.enter_network(stack.enter_context(network_namespace(owner)))
    namespace = _opened(stack, syscalls.THREAD_NETWORK_NAMESPACE)
    inside = stack.enter_context(Channel())
    inside.send([bring_up(_LOOPBACK)])
    return namespace, inside


def _settle(interface: str, name: str, *, on: bool) -> None:
    """A setting of IPv6, where the thread is."""
    Path("/proc/sys/net/ipv6/conf", interface, name).write_bytes(b"1" if on else b"0")


def _plug(host: Channel, inside: Channel, namespace: int, attachment: Attachment) -> None:
    endpoint = attachment.endpoint
    # The gateway is given; a router advertisement, from whichever container, must not change it.
    _settle("default", "accept_ra", on=False)
    _settle("default", "disable_ipv6", on=not endpoint.ipv6_address)
    host.send(attachment.create(namespace))
    inside.send(_set_up(attachment, socket.if_nametoindex(endpoint.interface)))


def _set_up(attachment: Attachment, index: int) -> Sequence[Request]:
    endpoint = attachment.endpoint
    return (*attachment.set_up(index), *_addresses(endpoint, index), bring_up(index), *_spans(endpoint, index))


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
