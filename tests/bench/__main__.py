"""`python -m tests.bench`: this engine against a real dockerd on this machine, as root, leaving nothing behind.

Everything of both engines lives in one directory, two network namespaces and two cgroups, all removed at the end, also
after a failure or Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from tests.bench import docker_engine, interrupts, machine, measure, publish, report, slipway_engine
from tests.bench.engine import Engine
from tests.bench.outcome import EngineResult, Results
from tests.bench.workspace import workspace
from tests.fixtures.busybox import busybox_archive

_PROGRAMS = ("ip", "mount", "nsenter", "umount", "unshare")
_ENGINES: Mapping[str, Callable[[Path], AbstractContextManager[Engine]]] = {
    slipway_engine.NAME: slipway_engine.slipway_engine,
    docker_engine.NAME: docker_engine.docker_engine,
}
_CGROUPS = (slipway_engine.CGROUP, docker_engine.CGROUP)
_INSTALLER = Path(__file__).parents[2] / "deploy" / "install-packages.sh"


def main() -> int:
    options = _options()
    if problem := _missing():
        print(problem, file=sys.stderr)
        return 2
    if options.only != slipway_engine.NAME:
        subprocess.run([_INSTALLER, "docker.io"], check=True)
    for number in interrupts.INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        _benchmark(options)
    except KeyboardInterrupt:
        print("interrupted; everything that was started is ended and removed", file=sys.stderr)
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure Slipway against a real dockerd."
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works, not how fast it is")
    parser.add_argument("--only", choices=_ENGINES, help="measure one engine alone")
    parser.add_argument("--output", type=Path, help="where to write the results, JSON")
    parser.add_argument(
        "--publish", action="store_true", help="also write results/published.json and docs/benchmark.md"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), help="both engines' files: a disk, not tmpfs"
    )
    return parser.parse_args()


def _missing() -> str:
    if os.geteuid() != 0:
        return "the benchmark starts two container engines: run it as root"
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)}; `make setup` installs what the host needs" if lacking else ""


def _interrupt(number: int, frame: FrameType | None) -> None:
    interrupts.ignore()
    raise KeyboardInterrupt


def _benchmark(options: argparse.Namespace) -> None:
    time = datetime.now(UTC)
    plan = measure.QUICK if options.quick else measure.Plan()
    host = {**machine.machine(options.directory), "load before": machine.load()}
    with workspace(options.directory, cgroup_names=_CGROUPS) as directory:
        found = _measured(directory, plan, names=[options.only] if options.only else list(_ENGINES))
    # Only now, with the machine as it was before: a run that left something behind has no results.
    results = Results(
        time=time, plan=plan, machine=host, own=found.get(slipway_engine.NAME), other=found.get(docker_engine.NAME)
    )
    print(f"\n{report.render(results)}\n")
    output = options.output or publish.default_output(time)
    publish.write_results(output, results)
    print(f"every sample: {output}")
    if options.publish:
        publish.write_results(publish.PUBLISHED, results)
        publish.PAGE.write_text(publish.with_section(publish.PAGE.read_text(), report.render(results)))
        print(f"published: {publish.PUBLISHED}, {publish.PAGE}")


def _measured(directory: Path, plan: measure.Plan, *, names: Sequence[str]) -> Mapping[str, EngineResult]:
    archive = directory / "busybox.tar"
    archive.write_bytes(busybox_archive())
    with contextlib.ExitStack() as stack:
        engines: list[Engine] = [stack.enter_context(_ENGINES[name](directory / name)) for name in names]
        stack.callback(interrupts.ignore)
        for engine in engines:
            engine.load_image(archive)
        facts = {engine.name: engine.facts for engine in engines}
        samples = measure.measure(engines, plan, progress=lambda text: print(text, file=sys.stderr, flush=True))
        return {
            engine.name: EngineResult(
                facts=facts[engine.name],
                samples=samples[engine.name],
                start_steps=engine.start_steps(samples[engine.name].containers),
            )
            for engine in engines
        }


if __name__ == "__main__":
    sys.exit(main())
