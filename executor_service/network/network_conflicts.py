"""What two networks of a node cannot both have."""

from __future__ import annotations

from collections.abc import Iterable

from executor_service.network.network import MacvlanMode, Network
from executor_service.network.refusals import refused


def check_apart(network: Network, others: Iterable[Network]) -> None:
    """What the kernel may not know of: a network whose bridge could not be made keeps its name and subnets. Raises
    FailedPrecondition."""
    for other in others:
        _check_parent(network, other)
        if network.bridge and other.bridge == network.bridge:
            why = f"bridge '{network.bridge}' is network '{other.name}''s; choose another name"
            raise refused(network.id, why, reason="BRIDGE_NOT_OURS")
        _check_tunnel(network, other)
        for subnet in network.spans:
            for taken in other.spans:
                if subnet.version == taken.version and subnet.overlaps(taken):
                    why = f"subnet {subnet} overlaps {taken} of network '{other.name}'; choose another subnet"
                    raise refused(network.id, why, reason="SUBNET_OVERLAPS")


def _check_parent(network: Network, other: Network) -> None:
    """As Docker: networks share a parent, unless one of them has it to itself."""
    wanted, taken = network.macvlan, other.macvlan
    if wanted is None or taken is None or wanted.parent != taken.parent:
        return
    if MacvlanMode.PASSTHRU in {wanted.mode, taken.mode}:
        why = f"parent '{wanted.parent}' is network '{other.name}''s, and one with mode passthru shares it with none"
        raise refused(network.id, f"{why}; remove that, or choose another parent or mode", reason="PARENT_IN_USE")


def _check_tunnel(network: Network, other: Network) -> None:
    wanted, taken = network.overlay, other.overlay
    if wanted is not None and taken is not None and (wanted.vni, wanted.port) == (taken.vni, taken.port):
        why = f"VNI {wanted.vni} at UDP port {wanted.port} is network '{other.name}''s; choose another VNI"
        raise refused(network.id, why, reason="VNI_IN_USE")
