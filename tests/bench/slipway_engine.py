"""Slipway's two services as real processes, driven through the public gRPC API over one unix socket connection.

All settings are the services' defaults; only the places of their files, the instance's name (which names its cgroups)
and the logs (JSON, with the steps of every start) are given.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
from slipway.v1 import container_service_pb2 as containers
from slipway.v1 import exec_service_pb2 as execs
from slipway.v1 import image_service_pb2 as images
from slipway.v1 import network_service_pb2 as networks
from slipway.v1 import resources_pb2
from slipway.v1 import system_service_pb2 as system
from slipway.v1.container_pb2 import ContainerConfig, HostConfig, PortBinding, PortBindings

from common.service_account import service_account
from tests.bench import cgroups, processes
from tests.bench.engine import DEFAULT_NETWORK, IMAGE, MOUNTS, NO_PORTS, Engine, Kind
from tests.bench.machine import program_version
from tests.bench.network_namespace import NetworkNamespace, await_ready, network_namespace
from tests.bench.slipway_client import SlipwayClient

NAME = "slipway"
INSTANCE = "bench"
CGROUP = f"slipway-{INSTANCE}"
_READY_TIMEOUT = 30.0  # seconds
_TIMINGS = "start timings"  # the event the executor logs of every start


_LOADED = HostConfig(
    resources=resources_pb2.Resources(
        memory=1 << 28,
        memory_reservation=1 << 27,
        cpu_shares=512,
        cpu_period=100_000,
        cpu_quota=100_000,
        cpuset_cpus="0",
        pids_limit=100,
    ),
    ulimits=[resources_pb2.Ulimit(name="nofile", soft=512, hard=512)],
    binds=[f"/tmp:/bind/{number}:ro" for number in range(MOUNTS // 2)],
    tmpfs={f"/tmpfs/{number}": "size=1m" for number in range(MOUNTS // 2)},
)


def _networked(network: str, ports: range) -> HostConfig | None:
    if not ports and network == DEFAULT_NETWORK:
        return None
    bindings = [PortBinding(host_port=str(port)) for port in ports]
    return HostConfig(
        network_mode=network, port_bindings={"80/tcp": PortBindings(bindings=bindings)} if bindings else {}
    )


class SlipwayEngine:
    def __init__(self, *, client: SlipwayClient, namespace: NetworkNamespace, executor_log: Path) -> None:
        self._client = client
        self._namespace = namespace
        self._executor_log = executor_log

    @property
    def name(self) -> str:
        return NAME

    @property
    def namespace(self) -> NetworkNamespace:
        return self._namespace

    @property
    def facts(self) -> Mapping[str, str]:
        version = self._client.call("SystemService/GetVersion", system.GetVersionRequest(), system.GetVersionResponse)
        (node,) = self._client.call("SystemService/GetInfo", system.GetInfoRequest(), system.GetInfoResponse).nodes
        if not node.available:
            raise RuntimeError(f"the executor does not answer: {node.error}")
        runtime = node.runtimes[0]
        return {
            "slipway": version.version,
            "python": version.python_version,
            "conmon": program_version("conmon"),
            "runtime": f"{runtime} {program_version(runtime)}",
            "cgroups": node.cgroup_layout,
        }

    def load_image(self, archive: Path) -> None:
        loaded = self._client.load_image(archive)
        if not any(IMAGE in image.repo_tags for image in loaded.images):
            raise RuntimeError(f"{archive} does not carry {IMAGE}: {loaded}")

    def pull(self, reference: str) -> None:
        request = images.PullImageRequest(reference=reference)
        with self._client.read("ImageService/PullImage", request, images.PullImageResponse) as answers:
            *_, last = answers
        if not last.HasField("image"):
            raise RuntimeError(f"the pull of {reference} ended with {last}")

    def remove_image(self, reference: str) -> None:
        request = images.RemoveImageRequest(image=reference)
        self._client.call("ImageService/RemoveImage", request, images.RemoveImageResponse)

    def create(
        self,
        name: str,
        kind: Kind = Kind.PLAIN,
        *,
        image: str = IMAGE,
        network: str = DEFAULT_NETWORK,
        ports: range = NO_PORTS,
    ) -> str:
        request = containers.CreateContainerRequest(
            name=name,
            config=ContainerConfig(image=image, cmd=kind.value, open_stdin=kind is Kind.ECHO),
            host_config=_LOADED if kind is Kind.LOADED else _networked(network, ports),
        )
        return self._client.call("ContainerService/CreateContainer", request, containers.CreateContainerResponse).id

    def create_network(self, name: str) -> None:
        request = networks.CreateNetworkRequest(name=name)
        self._client.call("NetworkService/CreateNetwork", request, networks.CreateNetworkResponse)

    def remove_network(self, name: str) -> None:
        request = networks.RemoveNetworkRequest(network=name)
        self._client.call("NetworkService/RemoveNetwork", request, networks.RemoveNetworkResponse)

    def start(self, container: str) -> None:
        request = containers.StartContainerRequest(container=container)
        self._client.call("ContainerService/StartContainer", request, containers.StartContainerResponse)

    def kill_until_exit(self, container: str) -> float:
        waiting = self._client.begin(
            "ContainerService/WaitContainer",
            containers.WaitContainerRequest(container=container),
            containers.WaitContainerResponse,
        )
        kill = containers.KillContainerRequest(container=container)
        begun = time.perf_counter()
        killing = self._client.begin("ContainerService/KillContainer", kill, containers.KillContainerResponse)
        waiting.result()
        ended = time.perf_counter()
        killing.result()
        return ended - begun

    def remove(self, container: str) -> None:
        request = containers.RemoveContainerRequest(container=container)
        self._client.call("ContainerService/RemoveContainer", request, containers.RemoveContainerResponse)

    def exec_true(self, container: str) -> None:
        config = execs.ExecConfig(cmd=["true"], attach_stdout=True, attach_stderr=True)
        asked = execs.CreateExecRequest(container=container, config=config)
        exec_id = self._client.call("ExecService/CreateExec", asked, execs.CreateExecResponse).id
        with self._client.converse("ExecService/StartExec", execs.StartExecResponse) as (send, answers):
            send(execs.StartExecRequest(start=execs.ExecTarget(exec=exec_id)))
            ends = [answer.end for answer in answers if answer.HasField("end")]
        if not ends or ends[0].exit_code != 0:
            raise RuntimeError(f"`true` ended with {ends}")

    @contextlib.contextmanager
    def echo(self, container: str) -> Iterator[Callable[[bytes], None]]:
        with self._client.converse("ContainerService/AttachContainer", containers.AttachContainerResponse) as talk:
            send, answers = talk
            target = containers.AttachTarget(container=container, stdin=True, stdout=True)
            send(containers.AttachContainerRequest(attach=target))
            next(answers)

            def round_trip(line: bytes) -> None:
                send(containers.AttachContainerRequest(stdin=line))
                received = b""
                while len(received) < len(line):
                    received += next(answers).output.data

            yield round_trip

    def tail(self, container: str, lines: int) -> int:
        request = containers.StreamLogsRequest(container=container, tail=lines)
        with self._client.read("ContainerService/StreamLogs", request, containers.StreamLogsResponse) as answers:
            return sum(len(answer.lines) for answer in answers)

    @contextlib.contextmanager
    def stats(self, containers_: Sequence[str]) -> Iterator[None]:
        request = containers.StreamStatsRequest(containers=containers_)
        with self._client.read("ContainerService/StreamStats", request, containers.StreamStatsResponse) as answers:
            threading.Thread(target=_drain, args=[answers], daemon=True).start()
            yield

    @property
    def services(self) -> set[int]:
        return {pid for pid in self._namespace.processes() if processes.name_of(pid).startswith("python")}

    def process(self, container: str) -> int:
        request = containers.InspectContainerRequest(container=container)
        answer = self._client.call("ContainerService/InspectContainer", request, containers.InspectContainerResponse)
        return answer.container.state.pid

    def start_steps(self, containers: Sequence[str]) -> Sequence[Mapping[str, float]]:
        return read_start_steps(self._executor_log.read_text(errors="replace"), containers)

    def answers(self) -> bool:
        try:
            return bool(self.facts)
        except (grpc.RpcError, RuntimeError):
            return False


def _drain(answers: Iterable[object]) -> None:
    with contextlib.suppress(grpc.RpcError):  # that it is cancelled
        for _ in answers:
            pass


def read_start_steps(log: str, containers: Sequence[str]) -> list[Mapping[str, float]]:
    """The steps of the last start of each of these containers, and their `total`, from the executor's JSON log."""
    found: dict[str, Mapping[str, float]] = {}
    for line in log.splitlines():
        if _TIMINGS in line:
            event = json.loads(line)
            found[event["container"]] = {**event["steps"], "executor, total": event["total"]}
    return [found[container] for container in containers]


@contextlib.contextmanager
def slipway_engine(directory: Path) -> Iterator[SlipwayEngine]:
    """Both services with all their files in `directory`; they and every container are gone at the end."""
    directory.mkdir(mode=0o755)
    api_socket = directory / "sockets" / "api.sock"
    api_socket.parent.mkdir(mode=0o755)
    account = service_account()
    os.chown(api_socket.parent, account.uid, account.gid)
    executor_log, api_log = directory / "executor.log", directory / "api.log"
    with contextlib.ExitStack() as stack:
        stack.callback(cgroups.remove, CGROUP)
        namespace = stack.enter_context(network_namespace(directory / "netns"))
        client = stack.enter_context(contextlib.closing(SlipwayClient(api_socket)))
        daemons = [
            (stack.enter_context(namespace.daemon(_executor_command(directory), log=executor_log)), executor_log),
            (stack.enter_context(namespace.daemon(_api_command(directory, api_socket), log=api_log)), api_log),
        ]
        engine = SlipwayEngine(client=client, namespace=namespace, executor_log=executor_log)
        await_ready(engine.answers, daemons=daemons, timeout=_READY_TIMEOUT)
        yield engine


def _executor_command(directory: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "executor_service", f"--instance={INSTANCE}"),
        f"--root-dir={directory / 'root'}",
        f"--run-dir={directory / 'run'}",
        f"--cgroup-parent=/{CGROUP}",
        *("--log-level=debug", "--log-format=json"),
    ]


def _api_command(directory: Path, socket: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "api_service", f"--instance={INSTANCE}"),
        f"--state-dir={directory / 'api'}",
        f"--listen=unix://{socket}",
        f"--executor=unix://{directory / 'run' / 'executor.sock'}",
    ]


_: type[Engine] = SlipwayEngine
