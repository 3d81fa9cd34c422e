"""Names on user-defined networks through both services, asked from inside the containers' own namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb

from tests.fixtures.name_servers import Client, known, upstream
from tests.fixtures.netns import command, open_namespace
from tests.fixtures.slipway import Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER = "198.51.100.53"  # a name server of the host's neighbourhood (RFC 5737)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    async with installed(tmp_path_factory.mktemp("services")) as engine:
        for name, internal in (("app", False), ("back", True)):
            request = network_pb.CreateNetworkRequest(name=name, internal=internal)
            await engine.networks.CreateNetwork(request, timeout=60)
        yield engine
        for name in ("app", "back"):
            await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network=name), timeout=60)


@pytest.fixture
def inside() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def client(engine: Slipway, container: str, inside: ExitStack) -> Client:
    pid = (await engine.inspect(container)).state.pid
    return Client(inside.enter_context(open_namespace(f"/proc/{pid}/ns/net")))


async def run(engine: Slipway, name: str, network: str, *, aliases: tuple[str, ...] = (), **host: object) -> str:
    settings = container_pb2.EndpointSettings(aliases=aliases)
    request = pb.CreateContainerRequest(
        name=name,
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep", "300"]),
        host_config=container_pb2.HostConfig(network_mode=network, **host),  # type: ignore[arg-type]
        networking_config=container_pb2.NetworkingConfig(endpoints_config={network: settings}),
    )
    container_id = (await engine.containers.CreateContainer(request, timeout=60)).id
    await engine.start(container_id)
    return container_id


async def addresses(engine: Slipway, container: str, network: str = "app") -> tuple[str, str]:
    settings = (await engine.inspect(container)).network_settings.networks[network]
    return settings.ip_address, settings.global_ipv6_address


async def connect(engine: Slipway, network: str, container: str) -> None:
    request = network_pb.ConnectContainerRequest(network=network, container=container)
    await engine.networks.ConnectContainer(request, timeout=60)


async def rename(engine: Slipway, container: str, name: str) -> None:
    await engine.containers.RenameContainer(pb.RenameContainerRequest(container=container, new_name=name), timeout=60)


async def test_containers_find_each_other_by_every_name_they_have(engine: Slipway, inside: ExitStack) -> None:
    web = await run(engine, "web", "app", aliases=("front",))
    other = await run(engine, "other", "app", aliases=("front",), dns=[SERVER])
    asking = await client(engine, other, inside)
    ipv4, ipv6 = await addresses(engine, "web")
    for name in ("web", "WEB.app", web[:12], f"{web[:12]}.app"):
        for tcp in (False, True):
            assert await asking.answers(name, tcp=tcp) == [ipv4]
            assert await asking.answers(name, "AAAA", tcp=tcp) == [ipv6]
    assert await asking.answers("web", "HTTPS") == []
    assert await asking.answers("front") == sorted([ipv4, (await addresses(engine, "other"))[0]])
    assert await asking.answers(".".join(reversed(ipv4.split("."))) + ".in-addr.arpa", "PTR") == ["web.app."]
    # What the containers themselves see of it.
    said = await engine.output("sh", "-c", "cat /etc/resolv.conf; nslookup -type=a web | tail -3", network_mode="app")
    assert said.startswith("nameserver 127.0.0.11\n") and "options ndots:0\n" in said
    assert f"Address: {ipv4}" in said

    command("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
    try:
        async with upstream(SERVER, known("192.0.2.1")) as beyond:
            assert await asking.answers("example.com") == ["192.0.2.1"]
            assert len(beyond.asked) == 1
            await engine.kill(web)
            async with asyncio.timeout(60):
                while await asking.answers("web.app") != ["192.0.2.1"]:
                    pass
    finally:
        command("ip", "address", "delete", f"{SERVER}/32", "dev", "lo")

    for container in (web, other):
        await engine.remove(container)


async def test_families_pointers_turns_and_large_answers(engine: Slipway, inside: ExitStack) -> None:
    request = network_pb.CreateNetworkRequest(name="four", enable_ipv6=False)
    await engine.networks.CreateNetwork(request, timeout=60)
    one = await run(engine, "one", "app", aliases=("pool",))
    two = await run(engine, "two", "app", aliases=("pool",))
    plain = await run(engine, "plain", "four")
    asking = await client(engine, one, inside)
    own, other = await addresses(engine, "one"), await addresses(engine, "two")
    for address in (*own, *other):
        owner = "one" if address in own else "two"
        assert await asking.answers(ip_address(address).reverse_pointer, "PTR") == [f"{owner}.app."]
    # A name without addresses of the family is known all the same.
    assert await (await client(engine, plain, inside)).answers("plain", "AAAA") == []
    assert await asking.answers(ip_address(own[0]).reverse_pointer, "A") == []
    first = {str((await asking.ask("pool")).answer[0][0]) for _ in range(64)}
    assert first == {own[0], other[0]}
    # EDNS is answered in kind, and only who asks with it gets it.
    assert ((await asking.ask("pool", payload=1232)).edns, (await asking.ask("pool")).edns) == (0, -1)
    for container in (one, two, plain):
        await engine.remove(container)
    await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network="four"), timeout=60)


async def test_no_name_is_known_on_another_network_or_the_default_one(engine: Slipway, inside: ExitStack) -> None:
    web = await run(engine, "web", "app")
    alone = await run(engine, "alone", "back")
    asking = await client(engine, alone, inside)
    for name in ("web", "web.app", web[:12], "example.com"):
        # The other network is an internal one: nothing is asked beyond it.
        assert await asking.answers(name) == "SERVFAIL"
    await connect(engine, "app", "alone")
    assert await asking.answers("web") == [(await addresses(engine, "web"))[0]]
    assert await asking.answers("alone.back") == [(await addresses(engine, "alone", "back"))[0]]

    plain = await engine.run("sleep", "300")
    pid = (await engine.inspect(plain)).state.pid
    # Who does not ask for it does not pay for it.
    with open_namespace(f"/proc/{pid}/ns/net") as namespace:
        assert namespace.command("nft", "list", "ruleset") == ""
        assert "127.0.0.11" not in namespace.command("ss", "-Hlun")
    etc = Path(f"/proc/{pid}/root/etc")
    assert "127.0.0.11" not in (etc / "resolv.conf").read_text()
    # Until it does, while it runs.
    await connect(engine, "app", plain)
    ipv4, _ = await addresses(engine, plain)
    assert (etc / "resolv.conf").read_text().startswith("nameserver 127.0.0.11\n")
    assert f"{ipv4}\t{plain[:12]}\n" in (etc / "hosts").read_text()
    asking = await client(engine, plain, inside)
    assert await asking.answers("web") == [(await addresses(engine, "web"))[0]]
    for container in (web, alone, plain):
        await engine.remove(container)


async def test_a_rename_and_a_killed_executor_change_no_answer_but_the_name(engine: Slipway, inside: ExitStack) -> None:
    web = await run(engine, "web", "app", aliases=("front",))
    other = await run(engine, "other", "back", dns=[SERVER])
    await connect(engine, "app", "other")
    asking = await client(engine, other, inside)
    ipv4, _ = await addresses(engine, "web")
    await connect(engine, "back", "web")
    await rename(engine, "web", "renamed")
    assert await asking.answers("renamed.app") == [ipv4]
    assert await asking.answers("front.app") == [ipv4]
    assert len(await asking.answers("renamed")) == 2
    assert ipv4 not in await asking.answers("web")

    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    for tcp in (False, True):
        assert await asking.answers("renamed.app", tcp=tcp) == [ipv4]
        assert len(await asking.answers("front", tcp=tcp)) == 1
    sidecar = await engine.run("sleep", "300", network_mode="container:other")
    await engine.remove(other)
    assert await asking.answers("renamed.app") == [ipv4]
    await engine.remove(sidecar)
    await engine.remove(web)


@pytest.mark.parametrize("removed", [False, True])
async def test_who_is_left_in_a_sandbox_asks_its_owners_servers_also_of_a_new_executor(
    engine: Slipway, inside: ExitStack, removed: bool
) -> None:
    owner = await run(engine, "owner", "app", dns=[SERVER])
    sidecar = await engine.run("sleep", "300", network_mode="container:owner")
    asking = await client(engine, sidecar, inside)
    await engine.kill(owner)
    await engine.wait(owner)
    if removed:
        await engine.remove(owner)
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    command("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
    try:
        async with upstream(SERVER, known("192.0.2.1")):
            assert await asking.answers("example.com") == ["192.0.2.1"]
    finally:
        command("ip", "address", "delete", f"{SERVER}/32", "dev", "lo")
    for container in (sidecar, *([] if removed else [owner])):
        await engine.remove(container)
