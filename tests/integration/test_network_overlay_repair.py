"""Networks that span nodes: what is deleted, fails or is cut off half-way is made good."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from common.errors import FailedPrecondition
from executor_service.container import EndpointSpec
from executor_service.network import firewall, overlay_driver
from tests.fixtures.overlay_nodes import OverlayNode, overlay_spec
from tests.fixtures.overlay_traffic import QUIET, SPAN, addresses, reaches, spanned


async def test_what_somebody_deletes_comes_back(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await spanned(nodes)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    for victim in (f"vx-{SPAN[:12]}", f"br-{SPAN[:12]}"):
        first.namespace.command("ip", "link", "delete", victim)
        async with asyncio.timeout(60):
            while not reaches(one, two, addresses(two)[0], timeout=0.2):
                await asyncio.sleep(0)
        assert reaches(two, one, addresses(one)[1])


async def test_a_new_executor_finds_the_peers_and_makes_what_is_gone(nodes: list[OverlayNode]) -> None:
    first, second = nodes
    await first.create(overlay_spec(first, SPAN))
    await second.create(overlay_spec(second, SPAN, first))
    await first.set_peers(SPAN, second, version=7)
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    for link in (f"vx-{SPAN[:12]}", f"br-{SPAN[:12]}"):  # as a reboot would
        await first.do(_deleted(link))
    first.namespace.command("nft", "delete", "table", "inet", "swtest0")

    async def restarted() -> int:
        async with first.opened() as again:
            await again.reconcile({"one": (EndpointSpec(network_id=SPAN),)})
            network = again.networks.find(SPAN)
            assert network is not None
            assert network.underlay is not None
            return network.underlay.version

    assert await first.do(restarted()) == 7
    for address in addresses(two):
        assert reaches(one, two, address)


async def _deleted(link: str) -> None:
    """While the watch of the running executor cannot act on it: its loop is busy here."""
    subprocess.run(["ip", "link", "delete", link], check=True)  # noqa: ASYNC221 - that it blocks is the point


def _fails(*arguments: object, **more: object) -> None:
    raise OSError(5, "made to fail")


async def test_a_create_that_fails_at_any_step_leaves_nothing(
    nodes: list[OverlayNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = nodes
    links, rules = first.namespace.command("ip", "-o", "link"), first.namespace.command("nft", "list", "ruleset")
    for module, step in ((overlay_driver, "ensure_tunnel"), (firewall, "add_network")):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, _fails)
            with pytest.raises(FailedPrecondition, match="made to fail"):
                await first.create(overlay_spec(first, SPAN))
        assert first.namespace.command("ip", "-o", "link") == links
        assert first.namespace.command("nft", "list", "ruleset") == rules
        assert first.network.networks.find(SPAN) is None


async def test_peers_that_could_not_be_set_are_on_record_and_set_by_the_repeat(
    nodes: list[OverlayNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = nodes
    await first.create(overlay_spec(first, SPAN))
    await second.create(overlay_spec(second, SPAN, first))
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    with monkeypatch.context() as patch:
        patch.setattr(overlay_driver, "change_peers", _fails)
        with pytest.raises(FailedPrecondition, match="made to fail; repeat the request"):
            await first.set_peers(SPAN, second, version=2)
    await first.set_peers(SPAN, second, version=2)
    assert reaches(one, two, addresses(two)[0])


@pytest.mark.parametrize("step", ["rules", "tunnel"])
async def test_whoever_dies_while_peers_are_set_is_made_good_by_the_next_executor(
    nodes: list[OverlayNode], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, second = nodes
    await first.create(overlay_spec(first, SPAN))
    await second.create(overlay_spec(second, SPAN, first))
    one, two = await first.sandbox("one", SPAN), await second.sandbox("two", SPAN)
    with monkeypatch.context() as patch:
        patch.setattr(*((firewall, "change_network") if step == "rules" else (overlay_driver, "change_peers")), _fails)
        with pytest.raises(FailedPrecondition, match="made to fail"):
            await first.set_peers(SPAN, second, version=2)
    assert not reaches(one, two, addresses(two)[0], timeout=QUIET)

    async def restarted() -> None:
        async with first.opened() as again:
            await again.reconcile({"one": (EndpointSpec(network_id=SPAN),)})

    await first.do(restarted())
    for address in addresses(two):
        assert reaches(one, two, address)
