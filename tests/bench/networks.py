"""`python -m tests.bench.networks`: what networks and published ports cost, against a real dockerd, as root.

Both engines run in network namespaces of their own, and everything is gone at the end. What dockerd cannot do within a
benchmark's patience (a process for each of thousands of ports) it is not asked for; the column is empty there.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tests.bench import docker_engine, machine, processes, report, slipway_engine
from tests.bench.engine import Engine, Kind
from tests.bench.memory import read_memory
from tests.bench.statistics import percentile
from tests.bench.throughput import run, throughput
from tests.bench.workspace import workspace
from tests.fixtures.busybox import busybox_archive
from tests.fixtures.netns import isolate_process, new_namespace, open_namespace

_PROGRAMS = ("dockerd", "iperf3", "nsenter")
_BARE = "bare veth"
_HOST = "192.0.2.1"  # an address of each engine's host (RFC 5737)
_FIRST_PORT = 20_000
_FEW, _MANY = 100, 1_000  # ports of one container
_CROWD, _CROWD_PORTS, _HOLDERS = 300, 5_000, 5  # containers, their ports, and how many of them have these
_BURST, _WIDTH = 64, 16
_PAUSE = 0.15  # seconds after a turn, for what an engine still does behind its answer
_CONNECTS = 200
_MIB = 2**20


@dataclass(slots=True)
class Found:
    """Samples by row and contender, each row in its unit."""

    samples: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: str, unit: str, who: str, *values: float) -> None:
        self.samples.setdefault((row, unit), {}).setdefault(who, []).extend(values)

    @contextmanager
    def timed(self, row: str, who: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.add(row, "ms", who, (time.perf_counter() - begun) * 1000)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.networks")
    parser.add_argument("--rounds", type=int, default=20, help="of single starts")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement of throughput")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="both engines' files: a disk")
    options = parser.parse_args()
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    facts = {**machine.machine(options.directory), "load before": machine.load()}
    if reason := isolate_process():
        print(reason, file=sys.stderr)
        return 2
    found = Found()
    with workspace(options.directory, cgroup_names=(slipway_engine.CGROUP, docker_engine.CGROUP)) as directory:
        _measure(directory, found, rounds=options.rounds, seconds=options.seconds)
    print("; ".join(f"{key} {value}" for key, value in facts.items()))
    print(_rendered(found))
    return 0


def _measure(directory: Path, found: Found, *, rounds: int, seconds: int) -> None:
    archive = directory / "busybox.tar"
    archive.write_bytes(busybox_archive())
    with ExitStack() as stack:
        own = stack.enter_context(slipway_engine.slipway_engine(directory / "slipway"))
        other = stack.enter_context(docker_engine.docker_engine(directory / "dockerd"))
        engines: Sequence[Engine] = (own, other)
        for engine in engines:
            engine.load_image(archive)
            _in_host(engine, "ip", "address", "add", f"{_HOST}/32", "dev", "lo")
        _say(f"{rounds} starts each, without a port and with one")
        for _ in range(rounds):
            for engine in engines:
                _single(engine, found, "start without a published port", range(0))
                _single(engine, found, "start with one published port", range(1))
        _say(f"throughput, {seconds} s each")
        _bare_throughput(found, seconds)
        for engine in engines:
            _throughput(engine, found, seconds)
        for engine, count in ((own, _FEW), (other, _FEW), (own, _MANY)):
            _say(f"{engine.name}: {count} ports on one container")
            _many_ports(engine, found, count)
        for engine in engines:
            _say(f"{engine.name}: {_BURST} starts on a user-defined network, {_WIDTH} at a time")
            _burst(engine, found)
        _say(f"{own.name}: {_CROWD} containers with {_CROWD_PORTS} ports")
        _crowd(own, found, rounds)


def _single(engine: Engine, found: Found, row: str, ports: range) -> None:
    container = engine.create(_name(), ports=_from_first(ports))
    with found.timed(row, engine.name):
        engine.start(container)
    _end(engine, container)
    time.sleep(_PAUSE)


def _many_ports(engine: Engine, found: Found, count: int) -> None:
    before = _memory(engine, ())
    container = engine.create(_name(), Kind.SERVER, ports=_from_first(range(count)))
    with found.timed(f"start with {count:,} published ports", engine.name):
        engine.start(container)
    growth = _memory(engine, (container,)) - before
    found.add(f"memory for {count:,} published ports", "MiB", engine.name, growth / _MIB)
    for which, port in (("first", 0), ("last", count - 1)):
        times = _connect_times(engine, _FIRST_PORT + port)
        found.add(f"TCP connect to the {which} of {count:,} ports", "ms", engine.name, *times)
    with found.timed(f"remove with {count:,} published ports", engine.name):
        _end(engine, container)


def _burst(engine: Engine, found: Found) -> None:
    engine.create_network("bench")
    with ThreadPoolExecutor(_WIDTH) as clients:
        names = [_name() for _ in range(_BURST)]
        containers = list(clients.map(lambda name: engine.create(name, network="bench"), names))
        with found.timed(f"{_BURST} starts on one user-defined network, {_WIDTH} at a time", engine.name):
            list(clients.map(engine.start, containers))
        list(clients.map(lambda container: _end(engine, container), containers))
    engine.remove_network("bench")


def _crowd(engine: Engine, found: Found, rounds: int) -> None:
    """A start among many, with many ports there, and what the last of these costs to connect to."""
    each = _CROWD_PORTS // _HOLDERS
    shares = [range(number * each, (number + 1) * each) for number in range(_HOLDERS)]
    row = f"start beside {_CROWD} containers and {_CROWD_PORTS:,} ports"
    for _ in range(rounds):
        _single(engine, found, "start as the first container", range(0))
    with ThreadPoolExecutor(_WIDTH) as clients:
        containers = [engine.create(_name(), Kind.SERVER, ports=_from_first(ports)) for ports in shares]
        containers += list(clients.map(lambda _: engine.create(_name()), range(_CROWD - _HOLDERS)))
        list(clients.map(engine.start, containers))
        time.sleep(2)
        for _ in range(rounds):
            _single(engine, found, row, range(0))
        for which, port in (("first", 0), ("last", _CROWD_PORTS - 1)):
            times = _connect_times(engine, _FIRST_PORT + port)
            found.add(f"TCP connect to the {which} of {_CROWD_PORTS:,} ports", "ms", engine.name, *times)
        list(clients.map(lambda container: _end(engine, container), containers))


def _connect_times(engine: Engine, port: int) -> list[float]:
    """Milliseconds, from the engine's host to an address of its own that no proxy serves."""

    def connect() -> list[float]:
        times = []
        for _ in range(_CONNECTS):
            begun = time.perf_counter()
            with socket.create_connection((_HOST, port), timeout=5):
                times.append((time.perf_counter() - begun) * 1000)
        return times

    with open_namespace(str(engine.namespace.path)) as namespace:
        return namespace.run(connect)


def _throughput(engine: Engine, found: Found, seconds: int) -> None:
    containers = [engine.create(_name()) for _ in range(2)]
    for container in containers:
        engine.start(container)
    client, server = (f"/proc/{engine.process(container)}/ns/net" for container in containers)
    for row, path in (("container to container", client), ("host to container", str(engine.namespace.path))):
        found.add(f"throughput, {row}", "Gbit/s", engine.name, throughput(path, server, seconds))
    for container in containers:
        _end(engine, container)


def _bare_throughput(found: Found, seconds: int) -> None:
    """A veth with nothing between its ends."""
    with new_namespace() as client, new_namespace() as server:
        client.command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", server.path)
        for number, namespace in ((1, client), (2, server)):
            namespace.command("ip", "address", "add", f"10.0.0.{number}/24", "dev", "eth0")
            namespace.command("ip", "link", "set", "eth0", "up")
        rate = throughput(client.path, server.path, seconds)
        for row in ("container to container", "host to container"):
            found.add(f"throughput, {row}", "Gbit/s", _BARE, rate)


def _memory(engine: Engine, containers: Sequence[str]) -> int:
    """Bytes of all the engine's own processes, proxies included."""
    inside = {engine.process(container) for container in containers}
    inside |= processes.descendants(inside)
    return read_memory(engine.namespace.processes() - inside).pss


def _end(engine: Engine, container: str) -> None:
    engine.kill_until_exit(container)
    engine.remove(container)


def _from_first(ports: range) -> range:
    return range(_FIRST_PORT + ports.start, _FIRST_PORT + ports.stop)


def _in_host(engine: Engine, *argv: str) -> None:
    run("nsenter", f"--net={engine.namespace.path}", *argv)


def _name() -> str:
    return f"bench-{uuid4().hex}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _rendered(found: Found) -> str:
    who = (slipway_engine.NAME, docker_engine.NAME, _BARE)
    body = [
        (row, unit, *(f"{percentile(values[each], 50):,.2f}" if each in values else "" for each in who))
        for (row, unit), values in found.samples.items()
    ]
    return report.table(("p50", "", *who), body)


if __name__ == "__main__":
    sys.exit(main())
