"""`python -m tests.bench.cluster`: what etcd costs beside the embedded store, how large a cluster an API service holds,
and how long what dies is missed, as root.

API services and etcd are real, with all files on a disk; nodes are faked where they are not what is measured. All of
it lives in a network namespace and a directory of its own, and nothing is left, also after a failure or Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from common.logging import configure_logging
from tests.bench import cluster_recovery, cluster_scale, cluster_steps, interrupts, machine, report
from tests.bench.workspace import workspace
from tests.fixtures.netns import isolate_process

_PROGRAMS = ("etcd", "ip", "nft", "nsenter", "conmon")
_PARTS = ("steps", "scale", "recovery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`containers` are created, started and inspected through each store; `bursts` of `seconds` measure throughput.
    `nodes`, `records`, `pages`: of the part about scale. `faults`: how often each happens."""

    containers: int = 300
    bursts: int = 3
    seconds: float = 5.0
    nodes: int = 1_000
    records: int = 30_000
    pages: int = 100
    faults: int = 3


_QUICK = Plan(containers=10, bursts=1, seconds=1, nodes=10, records=300, pages=5, faults=1)


def main() -> int:
    options = _options()
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        print(f"not installed: {', '.join(missing)}; apt-get install etcd-server, and `make setup`", file=sys.stderr)
        return 2
    facts = {**machine.machine(options.directory), "load before": machine.load()}
    if reason := isolate_process():
        print(reason, file=sys.stderr)
        return 2
    configure_logging(level="error", format="json")
    # A connection a node: what the unit of the API service allows for.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("; ".join(f"{key} {value}" for key, value in facts.items()))
    with workspace(options.directory, cgroup_names=()) as directory:
        work = _measure(directory, _QUICK if options.quick else Plan(), options.only or _PARTS)
        ended = asyncio.run(interrupts.interruptible(work))
    if not ended:
        print("interrupted; everything that was started is ended and removed", file=sys.stderr)
    return 0 if ended else 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works, not how fast it is")
    parser.add_argument("--only", choices=_PARTS, nargs="+", help="these parts")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="for all files: a disk, not tmpfs")
    return parser.parse_args()


async def _measure(directory: Path, plan: Plan, parts: Collection[str]) -> None:
    """Each part is told when it is over, and what it should be at most at the end."""
    bounds: list[report.Bound] = []
    if "steps" in parts:
        _say(
            f"{plan.containers} containers through each store in turn, {plan.bursts} bursts of {plan.seconds:g} s each"
        )
        steps = await cluster_steps.measure(
            directory, containers=plan.containers, rounds=plan.bursts, seconds=plan.seconds
        )
        print(f"\n{cluster_steps.tables(steps)}")
        bounds += cluster_steps.aims(steps)
    if "scale" in parts:
        _say(f"{plan.records} records of containers on {plan.nodes} nodes")
        scale = await cluster_scale.measure(directory, nodes=plan.nodes, containers=plan.records, pages=plan.pages)
        print(f"\n{cluster_scale.tables(scale)}")
        bounds += cluster_scale.aims(scale)
    if "recovery" in parts:
        _say(f"three machines, each fault {plan.faults} times")
        print(f"\n{cluster_recovery.tables(await cluster_recovery.measure(directory, rounds=plan.faults))}")
    if bounds:
        print(f"\n{report.bounds(bounds)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
