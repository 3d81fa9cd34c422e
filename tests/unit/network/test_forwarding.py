from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import FailedPrecondition
from executor_service.network.forwarding import enable_forwarding


def _tree(root: Path, *, forwarding: str) -> Path:
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/eth0/accept_ra"):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{forwarding}\n")
    return root


def test_forwarding_is_switched_on_for_both_families(tmp_path: Path) -> None:
    root = _tree(tmp_path, forwarding="0")
    enable_forwarding(root=root)
    assert (root / "ipv4/ip_forward").read_text() == "1"
    assert (root / "ipv6/conf/all/forwarding").read_text() == "1"


def test_what_is_on_is_not_written_again(tmp_path: Path) -> None:
    root = _tree(tmp_path, forwarding="1")
    enable_forwarding(root=root)
    assert (root / "ipv4/ip_forward").read_text() == "1\n"


def test_a_kernel_without_the_switch_is_reported_by_name(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"net\.ipv4\.ip_forward"):
        enable_forwarding(root=tmp_path)
