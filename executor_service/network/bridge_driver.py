"""Networks that are bridges of our own: a sandbox is plugged in by a veth, the host is its router."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from executor_service.network import forwarding, host_bridge
from executor_service.network.driver import HostLink, NetworkDriver
from executor_service.network.network import Network
from executor_service.network.rtnetlink import (
    Channel,
    Request,
    bring_onto,
    create_veth,
    delete_link,
    enslave,
    set_bridge_port,
    set_hardware_address,
    set_mtu,
)
from executor_service.network.sandbox import Endpoint
from executor_service.network.wiring import Attachment

_GONE = frozenset({errno.ENODEV})


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeAttachment:
    """A veth: `host_interface` is its end on the bridge. `isolated`: the bridge passes nothing between it and its
    like."""

    link: HostLink | None
    host_interface: str
    endpoint: Endpoint
    isolated: bool = False

    def create(self, namespace: int) -> Sequence[Request]:
        assert self.link is not None
        return (
            create_veth(
                name=self.host_interface,
                bridge=self.link.index,
                mtu=self.link.mtu,
                peer=self.endpoint.interface,
                peer_mac=self.endpoint.mac_address,
                namespace=namespace,
            ),
            set_bridge_port(self.host_interface, isolated=self.isolated),
        )

    def plug_in(self) -> None:
        """Put the host's end back on the bridge, which was made anew. Idempotent. Raises OSError."""
        assert self.link is not None
        with Channel() as host:
            host.send(
                [
                    enslave(self.host_interface, bridge=self.link.index),
                    set_bridge_port(self.host_interface, isolated=self.isolated),
                ]
            )

    def adopt(self) -> Sequence[Request]:
        """In the place of `create`, for a veth that was made ahead."""
        assert self.link is not None
        return (
            bring_onto(self.host_interface, bridge=self.link.index, mtu=self.link.mtu),
            set_bridge_port(self.host_interface, isolated=self.isolated),
        )

    def adopt_inside(self, index: int) -> Sequence[Request]:
        """The same for its end inside."""
        assert self.link is not None
        return set_hardware_address(index, self.endpoint.mac_address), set_mtu(index, self.link.mtu)

    def set_up(self, index: int) -> Sequence[Request]:
        return ()

    def delete(self, host: Channel, inside: Channel) -> None:
        host.send([delete_link(self.host_interface)], tolerate=_GONE)


class BridgeDriver:
    """NetworkDriver. `owner`: the instance's run directory, by which its bridges are told from another's."""

    def __init__(self, owner: Path) -> None:
        self._owner = owner

    def ensure(self, network: Network) -> HostLink:
        link = host_bridge.ensure_bridge(network, self._owner)
        forwarding.route_localnet(network.bridge)
        return link

    def delete(self, network: Network) -> None:
        host_bridge.delete_bridge(network, self._owner)

    def found(self, network: Network) -> HostLink | None:
        return None  # its rules and addresses would be missing

    def stands(self, network: Network, link: HostLink) -> bool:
        try:
            return socket.if_nametoindex(network.bridge) == link.index
        except OSError:
            return False

    def gone(self, network: Network) -> str:
        return f"bridge '{network.bridge}' is gone; it is being made again, repeat the request"

    def attachment(self, network: Network, link: HostLink | None, *, name: str, endpoint: Endpoint) -> Attachment:
        return BridgeAttachment(link=link, host_interface=name, endpoint=endpoint, isolated=not network.icc)


_: type[NetworkDriver] = BridgeDriver
