"""Networks that span nodes: on each a bridge with the node's slice, and a VXLAN interface that leads to the others'."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

from executor_service.network import host_bridge
from executor_service.network.bridge_driver import BridgeDriver
from executor_service.network.driver import HostLink, NetworkDriver
from executor_service.network.network import Network
from executor_service.network.overlay_tunnel import change_peers, delete_tunnel, ensure_tunnel, fitting_mtu
from executor_service.network.sandbox import Endpoint
from executor_service.network.wiring import Attachment


class OverlayDriver:
    """NetworkDriver. What is not of other nodes is a bridge's. `owner`: see BridgeDriver."""

    def __init__(self, owner: Path) -> None:
        self._owner = owner
        self._bridges = BridgeDriver(owner)

    def ensure(self, network: Network) -> HostLink:
        mtu = fitting_mtu(network)
        link = self._bridges.ensure(dataclasses.replace(network, mtu=mtu))
        try:
            ensure_tunnel(network, mtu=mtu)
        except BaseException:
            if link.created:
                self.delete(network)
            raise
        return link

    def change(self, before: Network, after: Network, link: HostLink) -> HostLink:
        """As `ensure`, where `before` is known to be as it should: where only other nodes came and went, nothing but
        those is touched."""
        moved = before.underlay is None or after.underlay is None or before.underlay.local != after.underlay.local
        if moved or not self.stands(after, link) or not change_peers(before, after):
            return self.ensure(after)
        return link

    def delete(self, network: Network) -> None:
        if host_bridge.is_elses(network, self._owner):
            return  # and so is the tunnel, if there is one
        delete_tunnel(network)
        self._bridges.delete(network)

    def found(self, network: Network) -> HostLink | None:
        return None  # its rules and addresses would be missing

    def stands(self, network: Network, link: HostLink) -> bool:
        return self._bridges.stands(network, link) and _exists(network.tunnel)

    def gone(self, network: Network) -> str:
        if not _exists(network.tunnel):
            return f"interface '{network.tunnel}' is gone; it is being made again, repeat the request"
        return self._bridges.gone(network)

    def attachment(self, network: Network, link: HostLink | None, *, name: str, endpoint: Endpoint) -> Attachment:
        return self._bridges.attachment(network, link, name=name, endpoint=endpoint)


def _exists(name: str) -> bool:
    try:
        return socket.if_nametoindex(name) != 0
    except OSError:
        return False


_: type[NetworkDriver] = OverlayDriver
