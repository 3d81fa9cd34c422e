"""Failures, cancels and crashes at every step: afterwards nothing is left, or everything is found again."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import FailedPrecondition, Internal, ResourceExhausted
from executor_service.container import NetworkMode
from executor_service.network import pins, rtnetlink, syscalls
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import PLAIN, bridge_config, bridge_network, interfaces, network_descriptors, node_state
from tests.fixtures.netns import command, open_namespace

# Every system call and netlink batch of a create, in order: (owner, attribute, how many calls go well before).
STEPS = [
    pytest.param(syscalls, "unshare_network", 0, id="unshare"),
    pytest.param(rtnetlink.Channel, "send", 0, id="host batch"),
    pytest.param(rtnetlink.Channel, "send", 1, id="inside batch"),
    pytest.param(pins.PinDirectory, "pin", 0, id="pin"),
    pytest.param(syscalls, "bind_mount", 0, id="bind mount"),
]


def _intercept(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, after: int, instead: Callable[[], None]
) -> None:
    """Let `after` calls pass, then call `instead` before each further one."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def intercepted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            instead()
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, intercepted)


async def _assert_nothing_left(network: Sandboxes, tmp_path: Path, before: set[str], descriptors: int) -> None:
    assert await network.list() == []
    assert list((tmp_path / "netns").iterdir()) == []
    with sqlite3.connect(tmp_path / "state.db") as connection:
        assert connection.execute("SELECT * FROM network_leases").fetchall() == []
    connection.close()
    assert network_descriptors() == descriptors
    async with asyncio.timeout(60):
        while interfaces() != before:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("owner", "name", "after"), STEPS)
async def test_a_failure_at_any_step_leaves_nothing_and_a_repeat_succeeds(
    network: Sandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: int
) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "the disk of the network is broken")

    before, descriptors = interfaces(), network_descriptors()
    with monkeypatch.context() as patch:
        _intercept(patch, owner, name, after=after, instead=fail)
        with pytest.raises(Internal, match="sandbox 'one': the disk of the network is broken"):
            await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    await _assert_nothing_left(network, tmp_path, before, descriptors)
    assert (await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)).endpoints


@pytest.mark.parametrize(("owner", "name", "after"), STEPS)
async def test_a_cancel_at_any_step_leaves_nothing(
    network: Sandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: int
) -> None:
    loop = asyncio.get_running_loop()
    reached, release = asyncio.Event(), threading.Event()

    def hold() -> None:
        loop.call_soon_threadsafe(reached.set)
        assert release.wait(60)

    before, descriptors = interfaces(), network_descriptors()
    with monkeypatch.context() as patch:
        _intercept(patch, owner, name, after=after, instead=hold)
        creating = asyncio.create_task(network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN))
        async with asyncio.timeout(60):
            await reached.wait()
        creating.cancel()
        creating.cancel()  # an impatient caller
        loop.call_soon(release.set)
        with pytest.raises(asyncio.CancelledError):
            await creating
    await _assert_nothing_left(network, tmp_path, before, descriptors)


async def test_a_cancel_while_the_record_is_written_leaves_nothing(network: Sandboxes, tmp_path: Path) -> None:
    before, descriptors = interfaces(), network_descriptors()
    creating = asyncio.create_task(network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN))
    await asyncio.sleep(0)  # it has queued its write, and the write has not been answered
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    await _assert_nothing_left(network, tmp_path, before, descriptors)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EXFULL, ResourceExhausted), (errno.ENOSPC, ResourceExhausted), (errno.EPERM, FailedPrecondition)],
)
async def test_the_kernels_refusal_keeps_its_meaning(
    network: Sandboxes, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    def refuse() -> None:
        raise OSError(number, "refused")

    with monkeypatch.context() as patch:
        _intercept(patch, rtnetlink.Channel, "send", after=0, instead=refuse)
        with pytest.raises(expected, match="refused"):
            await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)


async def test_a_vanished_bridge_is_reported_as_such(network: Sandboxes) -> None:
    command("ip", "link", "delete", "swtest0")
    with pytest.raises(FailedPrecondition, match="bridge 'swtest0' is gone"):
        await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    assert await network.list() == []


async def test_after_a_crash_the_kept_sandbox_is_adopted_and_the_others_are_destroyed(tmp_path: Path) -> None:
    config = bridge_config(tmp_path)
    async with node_state(tmp_path) as database, bridge_network(config, database) as former:
        before = interfaces()
        kept = await former.create("kept", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        other = await former.create("other", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
        bare = await former.create("bare", mode=NetworkMode.NONE)
        # No exit of the former one: as if it had been killed.
        async with Sandboxes(config, database) as network:
            await network.reconcile({"kept": PLAIN, "never heard of": PLAIN})
            assert await network.list() == [kept]
            assert not Path(other.netns_path).exists()
            assert not Path(bare.netns_path).exists()
            assert len(interfaces() - before) == 1
            assert await network.create("kept", mode=NetworkMode.BRIDGE, endpoints=PLAIN) == kept
            with open_namespace(kept.netns_path) as inside:
                inside.command("busybox", "ping", "-c1", "-W5", kept.endpoints[0].ipv4_gateway)


async def test_reconcile_sweeps_what_has_no_record_and_nothing_of_another_instance(
    network: Sandboxes, tmp_path: Path
) -> None:
    before = interfaces()
    await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    (veth,) = interfaces() - before
    prefix = veth[:6]
    stray_pin = tmp_path / "netns" / "straypin"
    stray_pin.touch()
    command("ip", "link", "add", f"{prefix}stray", "type", "veth", "peer", "name", "peer0")
    command("ip", "link", "add", "swffffother", "type", "ifb")
    try:
        await network.reconcile({"one": PLAIN})
        assert interfaces() - before == {veth, "swffffother"}
        assert not stray_pin.exists()
    finally:
        command("ip", "link", "delete", "swffffother")


async def test_a_veth_held_by_a_process_does_not_outlive_its_record(network: Sandboxes) -> None:
    """Its address will be leased again, so the interface must not stay on the bridge."""
    before = interfaces()
    sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    with open_namespace(sandbox.netns_path) as held:
        await network.reconcile({})
        assert interfaces() == before
        assert held.run(interfaces) == {"lo"}


async def test_after_a_reboot_the_leases_are_free(network: Sandboxes) -> None:
    sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    syscalls.detach_mount(Path(sandbox.netns_path))
    Path(sandbox.netns_path).unlink()
    await network.reconcile({"one": PLAIN})
    assert await network.list() == []


async def test_a_record_without_a_namespace_is_made_good_by_the_next_create(network: Sandboxes) -> None:
    sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    syscalls.detach_mount(Path(sandbox.netns_path))
    again = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    assert again.netns_path != sandbox.netns_path
    assert await network.list() == [again]
    with open_namespace(again.netns_path) as inside:
        assert inside.run(interfaces) == {"lo", "eth0"}
    await network.reconcile({"one": PLAIN})
    assert not Path(sandbox.netns_path).exists()


async def test_a_pin_survives_in_a_copied_mount_namespace_only_as_long_as_here(network: Sandboxes) -> None:
    """A runtime in a mount namespace of its own sees pins made later, and does not keep removed ones alive."""
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo ready; read line; exit 0",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
        sandbox = await network.create("one", mode=NetworkMode.NONE)
        mounts = Path(f"/proc/{process.pid}/mountinfo")
        assert sandbox.netns_path in mounts.read_text()
        await network.leave("one")
        assert sandbox.netns_path not in mounts.read_text()
    finally:
        process.stdin.close()
        async with asyncio.timeout(60):
            await process.wait()
