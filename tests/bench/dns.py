"""`python -m tests.bench.dns`: how the name server of user-defined networks bears load while names change, as root.

One process serves a network namespace as the executor does and changes records all the while; another one asks from
inside, at a steady rate, and counts. Nothing leaves the namespaces made for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from executor_service.dns.names import Registration
from executor_service.dns.redirect import ADDRESS
from executor_service.dns.sandbox_server import Resolving
from executor_service.dns.service import NameServer
from executor_service.dns.wire import TYPE_A, TYPE_AAAA, TYPE_PTR, encode_name
from executor_service.network import syscalls
from tests.bench.statistics import percentile
from tests.fixtures.netns import isolate_process, new_namespace

_STABLE = (("web", TYPE_A, 1), ("web.app", TYPE_A, 1), ("pool", TYPE_A, 3), ("web", TYPE_AAAA, 0))
_REVERSE = ("1.0.0.10.in-addr.arpa", TYPE_PTR, 1)
_GRACE = 1.0  # seconds for the last answers


def main() -> int:
    options = _options()
    if options.ask:
        print(json.dumps(_ask(options.ask, rate=options.rate, seconds=options.seconds)))
        return 0
    if reason := isolate_process():
        print(reason, file=sys.stderr)
        return 2
    return asyncio.run(_measure(options.rate, options.changes, options.seconds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dns")
    parser.add_argument("--rate", type=int, default=8_000, help="queries a second")
    parser.add_argument("--changes", type=int, default=50, help="changes of records a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--ask", help=argparse.SUPPRESS)  # the other process: the namespace to ask in
    return parser.parse_args()


async def _measure(rate: int, changes: int, seconds: float) -> int:
    with new_namespace() as namespace:
        async with NameServer() as server:
            for owner, names in (("c1", ("web", "pool")), ("c2", ("two", "pool")), ("c3", ("three", "pool"))):
                server.register(_container(owner, names))
            await server.serve("one", namespace=namespace.path, resolving=Resolving(networks=("app",), forward=False))
            changing = asyncio.create_task(_change(server, changes))
            used = _cpu_seconds()
            asking = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.bench.dns", "--ask", namespace.path,
                "--rate", str(rate), "--seconds", str(seconds), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await asking.communicate()
            used = _cpu_seconds() - used
            changing.cancel()
    if asking.returncode != 0:
        return 1
    result = json.loads(output)
    latencies = sorted(result["latencies"])
    print(f"{result['sent'] / seconds:,.0f} queries a second for {seconds:g} s, {changes} changes of records a second")
    print("latency, ms: " + ", ".join(f"p{p:g} {percentile(latencies, p):.2f}" for p in (50, 90, 99, 99.9, 100)))
    print(f"lost {result['sent'] - len(latencies)}, wrong {result['wrong']}")
    print(f"the server's processor time: {used / result['sent'] * 1e6:.0f} µs a query, the loop's own included")
    return 0 if result["sent"] == len(latencies) and not result["wrong"] else 1


def _container(owner: str, names: tuple[str, ...]) -> Registration:
    return Registration(
        network_id="app", network_name="app", container_id=owner, names=names, addresses=(f"10.0.0.{owner[1:]}",)
    )


async def _change(server: NameServer, changes: int) -> None:
    number = 0
    while True:
        await asyncio.sleep(1 / changes)
        number += 1
        match number % 3:
            case 0:
                server.register(_container("c9", (f"name{number}", "coming")))
            case 1:
                server.register(_container("c9", (f"renamed{number}", "coming")))
            case _:
                server.withdraw("app", "c9")


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _ask(namespace: str, *, rate: int, seconds: float) -> dict[str, object]:
    """Latencies in ms, of what was answered; how many were sent, and how many answered with something else than they
    must."""
    descriptor = os.open(Path(namespace), os.O_RDONLY | os.O_CLOEXEC)
    syscalls.enter_network(descriptor)
    queries = [_query(name, kind) for name, kind, _ in (*_STABLE, _REVERSE)]
    expected = [count for *_, count in (*_STABLE, _REVERSE)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((ADDRESS, 53))
        return _paced(sock, queries, expected, rate=rate, seconds=seconds)


def _paced(
    sock: socket.socket, queries: Sequence[bytes], expected: Sequence[int], *, rate: int, seconds: float
) -> dict[str, object]:
    asked: dict[int, tuple[int, float]] = {}
    latencies: list[float] = []
    sent = wrong = 0
    total = int(rate * seconds)
    started = time.perf_counter()
    while sent < total or (asked and time.perf_counter() - started < seconds + _GRACE):
        due = min(int((time.perf_counter() - started) * rate), total)
        if sent < due:
            number = sent & 0xFFFF
            asked[number] = (sent % len(queries), time.perf_counter())
            sock.send(number.to_bytes(2, "big") + queries[sent % len(queries)])
            sent += 1
        try:
            answer = sock.recv(4096)
        except BlockingIOError:
            if sent == due:
                select.select([sock], [], [], 0.5 / rate)
            continue
        which, at = asked.pop(int.from_bytes(answer[:2], "big"))
        latencies.append((time.perf_counter() - at) * 1000)
        wrong += answer[3] & 0xF != 0 or int.from_bytes(answer[6:8], "big") != expected[which]
    return {"sent": sent, "wrong": wrong, "latencies": latencies}


def _query(name: str, kind: int) -> bytes:
    """Without its id."""
    encoded = encode_name(name)
    assert encoded is not None
    return b"\x01\x00\x00\x01" + bytes(6) + encoded + kind.to_bytes(2, "big") + b"\x00\x01"


if __name__ == "__main__":
    sys.exit(main())
