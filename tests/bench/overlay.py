"""`python -m tests.bench.overlay`: what an overlay network costs beside a plain veth, and what a node's join does.

Two nodes, a network namespace each on one underlay, with the executor's own network in them. All that is compared is
measured in turns; as root, and nothing is left.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from executor_service.network.network import Peer
from tests.bench import machine, report
from tests.bench.statistics import percentile
from tests.bench.throughput import throughput
from tests.fixtures.netns import Namespace, isolate_process, open_namespace
from tests.fixtures.overlay_nodes import OverlayNode, overlay_nodes, overlay_spec, underlay

_NETWORK = "1" * 64
_PORT = 7000
_JOINS = (1, 100, 1000)  # nodes that are there already
_PLAIN, _LOCAL, _OVERLAY = "node to node, plain veth", "container to container, one node", "overlay, two nodes"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.overlay")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement of throughput")
    parser.add_argument("--echoes", type=int, default=2000, help="of each measurement of latency")
    options = parser.parse_args()
    facts = {**machine.machine(Path(tempfile.gettempdir())), "load before": machine.load()}
    if reason := isolate_process():
        print(reason, file=sys.stderr)
        return 2
    print("; ".join(f"{key} {value}" for key, value in facts.items()))
    asyncio.run(_measure(options.rounds, options.seconds, options.echoes))
    return 0


async def _measure(rounds: int, seconds: int, echoes: int) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        async with overlay_nodes(Path(directory), 2) as (first, second):
            await first.create(overlay_spec(first, _NETWORK, second))
            await second.create(overlay_spec(second, _NETWORK, first))
            here, beside, there = [
                stack.enter_context(open_namespace((await node.sandbox(name, _NETWORK)).netns_path))
                for node, name in ((first, "here"), (first, "beside"), (second, "there"))
            ]
            pairs = {
                _PLAIN: (first.namespace, second.namespace),
                _LOCAL: (here, beside),
                _OVERLAY: (here, there),
            }
            await asyncio.to_thread(_compare, pairs, rounds, seconds, echoes)
            print(report.table(("a node joins", "p50 ms", "p99 ms"), [await _joins(first, count) for count in _JOINS]))
            stack.close()


def _compare(pairs: Mapping[str, tuple[Namespace, Namespace]], rounds: int, seconds: int, echoes: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in pairs}
    times: dict[str, list[float]] = {name: [] for name in pairs}
    for _ in range(rounds):
        for name, (client, server) in pairs.items():
            rates[name].append(throughput(client.path, server.path, seconds))
        for name, (client, server) in pairs.items():
            times[name] += _echoes(client, server, echoes)
    rows = [
        (
            name,
            f"{percentile(rates[name], 50):.1f}",
            f"{percentile(times[name], 50):.0f}",
            f"{percentile(times[name], 99):.0f}",
        )
        for name in pairs
    ]
    print(report.table(("", "TCP Gbit/s, p50", "UDP echo µs, p50", "p99"), rows))


def _echoes(client: Namespace, server: Namespace, count: int) -> list[float]:
    """Microseconds from a datagram to its echo."""
    address = server.command("ip", "-4", "-o", "address", "show", "dev", "eth0").split()[3].partition("/")[0]
    with (
        server.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        client.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
    ):
        listening.bind((address, _PORT))
        asking.connect((address, _PORT))
        echoing = threading.Thread(target=_echo, args=(listening, count))
        echoing.start()
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            asking.send(b"x")
            asking.recv(16)
            taken.append((time.perf_counter() - begun) * 1e6)
        echoing.join()
    return taken


def _echo(listening: socket.socket, count: int) -> None:
    for _ in range(count):
        data, sender = listening.recvfrom(16)
        listening.sendto(data, sender)


async def _joins(node: OverlayNode, count: int) -> tuple[str, str, str]:
    """One node more and one less in turn, beside so many."""
    others = [
        Peer(
            address=IPv4Address("10.91.0.0") + number,
            ipv4=IPv4Network((int(IPv4Address("10.121.4.0")) + 16 * number, 28)),
        )
        for number in range(count + 1)
    ]
    taken = []
    base = underlay(node, version=count * 1000, vni=_NETWORK)
    for turn in range(21):
        peers = tuple(others if turn % 2 else others[:-1])
        begun = time.perf_counter()
        await node.do(
            node.network.networks.set_underlay(_NETWORK, replace(base, peers=peers, version=base.version + turn))
        )
        taken.append((time.perf_counter() - begun) * 1000)
    taken = taken[1:]  # the first has all of them to make
    return f"beside {count:,}", f"{percentile(taken, 50):.1f}", f"{percentile(taken, 99):.1f}"


if __name__ == "__main__":
    sys.exit(main())
