"""`python -m tests.bench.images`: what an image costs until containers can be made of it, as root.

An image of 8 layers, 46,000 files and 400 MB is pulled from a registry on the loopback interface by this engine, by a
real dockerd, by skopeo with umoci, and its layers are unpacked by gzip and tar; then one that shares 7 of the layers.
Everything is in memory (tmpfs), in namespaces of its own, and gone at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tests.bench import docker_engine, machine, report, slipway_engine
from tests.bench.big_image import write_layouts
from tests.bench.engine import Engine
from tests.bench.memory import status_size
from tests.bench.network_namespace import NetworkNamespace, await_ready
from tests.bench.statistics import percentile
from tests.bench.workspace import workspace

_HOST = "127.0.0.1:5000"
_PROGRAMS = ("docker-registry", "dockerd", "skopeo", "umoci", "gzip", "tar")
_WHOLE = "pull of 400 MB, 46,000 files, 8 layers"
_SHARED = "pull that shares 7 of 8 layers"
_ONE = "create from 1 layer"
_MANY = "create from 40 layers"
_READY = 20.0  # seconds
_TOOLS = "skopeo, umoci"
_TAR = "gzip, tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Seconds by row and contender; `memory` of the executor in MiB."""

    times: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)

    @contextmanager
    def timed(self, row: str, who: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.times.setdefault(row, {}).setdefault(who, []).append(time.perf_counter() - begun)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--creates", type=int, default=20)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for all files; it takes 3 GiB")
    options = parser.parse_args()
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    facts = {**machine.machine(options.directory), "load before": machine.load()}
    with workspace(options.directory, cgroup_names=(slipway_engine.CGROUP, docker_engine.CGROUP)) as directory:
        found = _measured(directory, rounds=options.rounds, creates=options.creates)
    print("; ".join(f"{key} {value}" for key, value in facts.items()))
    print(rendered(found))
    return 0


def _measured(directory: Path, *, rounds: int, creates: int) -> Found:
    found = Found()
    layout = directory / "layout"
    names = write_layouts(layout)
    with ExitStack() as stack:
        own = stack.enter_context(slipway_engine.slipway_engine(directory / "slipway"))
        other = stack.enter_context(docker_engine.docker_engine(directory / "dockerd"))
        for engine in (own, other):
            stack.enter_context(_registry(engine.namespace, directory / "registry", directory / f"{engine.name}.log"))
        for name in names:
            _copy(own.namespace, f"oci:{layout}:{name}", f"docker://{_HOST}/{name}:1")
        found.memory.append(_peak(own))
        contenders: Mapping[str, Callable[[], None]] = {
            own.name: lambda: _pulls(own, found),
            other.name: lambda: _pulls(other, found),
            _TOOLS: lambda: _by_tools(own.namespace, directory / "tools", found),
            _TAR: lambda: _by_tar(layout, directory / "tar", found),
        }
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for contend in contenders.values():
                contend()
        found.memory.append(_peak(own))
        for engine in (own, other):
            _creates(engine, creates, found)
    return found


def _pulls(engine: Engine, found: Found) -> None:
    with found.timed(_WHOLE, engine.name):
        engine.pull(f"{_HOST}/big:1")
    with found.timed(_SHARED, engine.name):
        engine.pull(f"{_HOST}/changed:1")
    # It counts only if it can be started.
    container = engine.create(f"bench-{uuid4().hex}", image=f"{_HOST}/changed:1")
    engine.start(container)
    engine.kill_until_exit(container)
    engine.remove(container)
    for name in ("changed", "big"):
        engine.remove_image(f"{_HOST}/{name}:1")


def _by_tools(namespace: NetworkNamespace, directory: Path, found: Found) -> None:
    directory.mkdir()
    with found.timed(_WHOLE, _TOOLS):
        _copy(namespace, f"docker://{_HOST}/big:1", f"oci:{directory}/oci:big")
        _run("umoci", "unpack", "--image", f"{directory}/oci:big", f"{directory}/bundle")
    _run("rm", "-rf", str(directory))


def _by_tar(layout: Path, directory: Path, found: Found) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_bytes())
    directory.mkdir()
    with found.timed(_WHOLE, _TAR):
        for layer in manifest["layers"]:
            path = _blob(layout, layer["digest"])
            _run("sh", "-c", f"gzip -dc {path} | tar -x -C {directory}")
    _run("rm", "-rf", str(directory))


def _creates(engine: Engine, rounds: int, found: Found) -> None:
    for name in ("small", "many"):
        engine.pull(f"{_HOST}/{name}:1")
    for _ in range(rounds):
        for name, row in (("small", _ONE), ("many", _MANY)):
            with found.timed(row, engine.name):
                container = engine.create(f"bench-{uuid4().hex}", image=f"{_HOST}/{name}:1")
            engine.remove(container)


@contextmanager
def _registry(namespace: NetworkNamespace, data: Path, log: Path) -> Iterator[None]:
    """In that namespace; all of them serve the same data."""
    config = log.with_suffix(".yml")
    config.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"accesslog": {"disabled": True}, "level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(data)}},
                "http": {"addr": _HOST},
            }
        )
    )
    probe = ["nsenter", f"--net={namespace.path}", "bash", "-c", f"exec 3<>/dev/tcp/{_HOST.replace(':', '/')}"]
    with namespace.daemon(["docker-registry", "serve", str(config)], log=log) as process:
        await_ready(
            lambda: subprocess.run(probe, check=False, capture_output=True).returncode == 0,
            daemons=[(process, log)],
            timeout=_READY,
        )
        yield


def _copy(namespace: NetworkNamespace, source: str, target: str) -> None:
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    _run("nsenter", f"--net={namespace.path}", "skopeo", "--insecure-policy", "copy", "-q", *tls, source, target)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _peak(engine: slipway_engine.SlipwayEngine) -> int:
    (executor,) = [pid for pid in engine.services if b"executor_service" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return status_size(executor, "VmHWM") >> 20


def rendered(found: Found) -> str:
    who = (slipway_engine.NAME, docker_engine.NAME, _TOOLS, _TAR)
    body = [
        (row, *(f"{percentile(times[each], 50) * 1000:,.0f}" if each in times else "" for each in who))
        for row, times in found.times.items()
    ]
    before, after = found.memory
    memory = f"the executor's peak memory: {before} MiB before the pulls, {after} MiB with them"
    table = report.table(("p50, ms", *who), body)
    return f"{table}\n\n{report.bounds(_aims(found))}\n\n{memory}"


def _aims(found: Found) -> Iterator[report.Bound]:
    def median(row: str, who: str = slipway_engine.NAME) -> float:
        return percentile(found.times[row][who], 50)

    yield report.Bound("pull, to dockerd's", median(_WHOLE) / median(_WHOLE, docker_engine.NAME), 1.0)
    yield report.Bound("pull, to gzip and tar", median(_WHOLE) / median(_WHOLE, _TAR), 1.3)
    yield report.Bound("pull that shares, to a whole one", median(_SHARED) / median(_WHOLE), 0.2)
    yield report.Bound("create from 40 layers, to one from 1", median(_MANY) / median(_ONE), 1.2)
    yield report.Bound("peak memory with pulls, in MB", found.memory[-1] * 2**20 / 1e6, 150.0)


if __name__ == "__main__":
    sys.exit(main())
