"""Networks on the link of one of the host's interfaces: containers are its neighbours there, with hardware addresses of
their own, and the host, which the kernel keeps apart from them, neither routes nor filters what they send.

Sources: linux/if_link.h, drivers/net/macvlan.c; messages as Docker's macvlan driver.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import FailedPrecondition
from executor_service.network.driver import HostLink, NetworkDriver
from executor_service.network.kernel_links import open_kernel
from executor_service.network.network import MacvlanLink, MacvlanMode, Network
from executor_service.network.rtnetlink import Channel, Request, create_macvlan, delete_index, set_hardware_address
from executor_service.network.sandbox import Endpoint
from executor_service.network.wiring import Attachment

_GONE = frozenset({errno.ENODEV})
_ETHERNET = 1  # ARPHRD_ETHER, linux/if_arp.h
_LOWEST_INDEX = 1 << 16  # above what the kernel counts to by itself on a host
_INDEX_BITS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class MacvlanAttachment:
    """`index`: of the interface, in the sandbox. Whoever has CAP_NET_ADMIN there can rename it and give it another
    hardware address, and cannot change that. `parent`: the host's index of it, 0 when it is not there."""

    parent: int
    mode: MacvlanMode
    index: int
    endpoint: Endpoint

    def create(self, namespace: int) -> Sequence[Request]:
        return (
            create_macvlan(
                parent=self.parent,
                mode=self.mode,
                index=self.index,
                name=self.endpoint.interface,
                mac=self.endpoint.mac_address,
                namespace=namespace,
            ),
        )

    def set_up(self, index: int) -> Sequence[Request]:
        # The kernel gives it the parent's, whatever was asked for.
        passthru = self.mode is MacvlanMode.PASSTHRU
        return (set_hardware_address(index, self.endpoint.mac_address),) if passthru else ()

    def delete(self, host: Channel, inside: Channel) -> None:
        inside.send([delete_index(self.index)], tolerate=_GONE)


class MacvlanDriver:
    """NetworkDriver. Nothing is made on the host: the parent is the operator's."""

    def ensure(self, network: Network) -> HostLink:
        link = _link(network)
        with open_kernel() as kernel:
            index = kernel.link_lookup(ifname=link.parent)
            if not index:
                raise _unfit(network, _missing(link.parent))
            found = kernel.get_links(index[0])[0]
            if found["ifi_type"] != _ETHERNET:
                raise _unfit(network, f"parent '{link.parent}' is no Ethernet interface; choose another one")
            return HostLink(index=index[0], mtu=int(found.get("mtu")))

    def delete(self, network: Network) -> None:
        return

    def found(self, network: Network) -> HostLink | None:
        index = _index_of(_link(network).parent)
        return HostLink(index=index, mtu=0) if index else None

    def stands(self, network: Network, link: HostLink) -> bool:
        return _index_of(_link(network).parent) != 0

    def gone(self, network: Network) -> str:
        return _missing(_link(network).parent)

    def attachment(self, network: Network, link: HostLink | None, *, name: str, endpoint: Endpoint) -> Attachment:
        own = _link(network)
        digest = hashlib.sha256(name.encode()).digest()
        index = _LOWEST_INDEX + (int.from_bytes(digest[:4], "big") >> (32 - _INDEX_BITS))
        return MacvlanAttachment(parent=_index_of(own.parent), mode=own.mode, index=index, endpoint=endpoint)


def _link(network: Network) -> MacvlanLink:
    assert network.macvlan is not None
    return network.macvlan


def _index_of(name: str) -> int:
    """0: there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _missing(parent: str) -> str:
    base, dot, number = parent.rpartition(".")
    if dot and number.isdecimal():
        return (
            f"there is no interface '{parent}' on this node; make it first, 'ip link add link {base} name {parent} "
            f"type vlan id {number}', for which the kernel needs CONFIG_VLAN_8021Q"
        )
    return f"there is no interface '{parent}' on this node; give the name of one that 'ip link' shows there"


def _unfit(network: Network, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"network '{network.name}': {why}",
        resource_type="network",
        resource_name=network.id,
        reason="PARENT_UNAVAILABLE",
    )


_: type[NetworkDriver] = MacvlanDriver
