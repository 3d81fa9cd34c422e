"""A real dockerd with everything of its own, driven through its HTTP API on connections that stay open.

All settings are dockerd's defaults (bridge, iptables, docker-proxy, json-file logs, its choice of storage driver, runc
as the distribution ships it); only the places of its files and the parent of its cgroups are given.
Source: dockerd(8), https://docs.docker.com/engine/api/v1.41/
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from tests.bench import cgroups, processes
from tests.bench.engine import CALL_TIMEOUT, DEFAULT_NETWORK, IMAGE, MOUNTS, NO_PORTS, Engine, Kind
from tests.bench.network_namespace import NetworkNamespace, await_ready, network_namespace

NAME = "dockerd"
_FRAME_HEADER = 8  # bytes before each piece of output without a terminal
_LOADED = {
    "Memory": 1 << 28,
    "MemoryReservation": 1 << 27,
    "CpuShares": 512,
    "CpuPeriod": 100_000,
    "CpuQuota": 100_000,
    "CpusetCpus": "0",
    "PidsLimit": 100,
    "Ulimits": [{"Name": "nofile", "Soft": 512, "Hard": 512}],
    "Binds": [f"/tmp:/bind/{number}:ro" for number in range(MOUNTS // 2)],
    "Tmpfs": {f"/tmpfs/{number}": "size=1m" for number in range(MOUNTS // 2)},
}
CGROUP = "slipway-bench-dockerd"
_READY_TIMEOUT = 30.0  # seconds


class DockerEngine:
    def __init__(self, *, api: Path, namespace: NetworkNamespace) -> None:
        self._api = api
        self._namespace = namespace
        self._connections = threading.local()  # http.client connections serve one thread at a time

    @property
    def name(self) -> str:
        return NAME

    @property
    def namespace(self) -> NetworkNamespace:
        return self._namespace

    @property
    def facts(self) -> Mapping[str, str]:
        version = self._call("GET", "/version")
        components = {part["Name"]: part["Version"] for part in version["Components"]}
        info = self._call("GET", "/info")
        return {
            "dockerd": components["Engine"],
            "containerd": components["containerd"],
            "runtime": f"{info['DefaultRuntime']} {components['runc']}",
            "storage driver": f"{info['Driver']} on {dict(info['DriverStatus']).get('Backing Filesystem', '?')}",
            "log driver": info["LoggingDriver"],
            "cgroup driver": f"{info['CgroupDriver']}, cgroup v{info['CgroupVersion']}",
        }

    def load_image(self, archive: Path) -> None:
        with archive.open("rb") as body:
            answer = self._call("POST", "/images/load?quiet=1", body=body)
        if "errorDetail" in json.dumps(answer):
            raise RuntimeError(f"dockerd did not load {archive}: {answer}")

    def pull(self, reference: str) -> None:
        name, _, tag = reference.rpartition(":")
        connection = self._connection("pull")
        connection.request("POST", f"/images/create?{urlencode({'fromImage': name, 'tag': tag})}")
        if b"errorDetail" in (said := connection.getresponse().read()):
            raise RuntimeError(f"dockerd did not pull {reference}: {said[-300:]!r}")

    def remove_image(self, reference: str) -> None:
        self._call("DELETE", f"/images/{quote(reference, safe='')}")

    def create(
        self,
        name: str,
        kind: Kind = Kind.PLAIN,
        *,
        image: str = IMAGE,
        network: str = DEFAULT_NETWORK,
        ports: range = NO_PORTS,
    ) -> str:
        asked: dict[str, object] = {"Image": image, "Cmd": kind.value, "OpenStdin": kind is Kind.ECHO}
        if kind is Kind.LOADED:
            asked["HostConfig"] = _LOADED
        elif ports or network != DEFAULT_NETWORK:
            bindings = [{"HostPort": str(port)} for port in ports]
            asked["HostConfig"] = {"NetworkMode": network, "PortBindings": {"80/tcp": bindings} if bindings else {}}
            asked["ExposedPorts"] = {"80/tcp": {}} if bindings else {}
        return str(self._call("POST", f"/containers/create?{urlencode({'name': name})}", asked)["Id"])

    def create_network(self, name: str) -> None:
        self._call("POST", "/networks/create", {"Name": name})

    def remove_network(self, name: str) -> None:
        self._call("DELETE", f"/networks/{quote(name)}")

    def start(self, container: str) -> None:
        self._call("POST", f"/containers/{quote(container)}/start")

    def kill_until_exit(self, container: str) -> float:
        waiting = self._connection("wait")
        waiting.request("POST", f"/containers/{quote(container)}/wait?condition=not-running")
        answer = waiting.getresponse()  # the headers come when dockerd has begun to wait, the body when it has ended
        killing = self._connection("call")
        begun = time.perf_counter()
        killing.request("POST", f"/containers/{quote(container)}/kill")
        _content(answer)
        ended = time.perf_counter()
        _content(killing.getresponse())
        return ended - begun

    def remove(self, container: str) -> None:
        self._call("DELETE", f"/containers/{quote(container)}")

    def exec_true(self, container: str) -> None:
        asked = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
        exec_id = self._call("POST", f"/containers/{quote(container)}/exec", asked)["Id"]
        connection = self._connection("exec")
        begin = {"Content-Type": "application/json"}
        connection.request("POST", f"/exec/{exec_id}/start", json.dumps({"Detach": False}), begin)
        connection.getresponse().read()
        connection.close()  # dockerd ends a stream by ending its connection
        if (code := self._call("GET", f"/exec/{exec_id}/json")["ExitCode"]) != 0:
            raise RuntimeError(f"`true` ended with {code}")

    @contextlib.contextmanager
    def echo(self, container: str) -> Iterator[Callable[[bytes], None]]:
        with contextlib.closing(_UnixConnection(self._api)) as connection:
            connection.connect()
            upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
            path = f"/containers/{quote(container)}/attach?stream=1&stdin=1&stdout=1"
            connection.request("POST", path, headers=upgrade)
            stream = connection.sock
            _until_blank_line(stream)

            def round_trip(line: bytes) -> None:
                stream.sendall(line)
                _receive(stream, _FRAME_HEADER + len(line))

            yield round_trip

    def tail(self, container: str, lines: int) -> int:
        connection = self._connection("call")
        connection.request("GET", f"/containers/{quote(container)}/logs?stdout=1&stderr=1&tail={lines}")
        return connection.getresponse().read().count(b"\n")

    @contextlib.contextmanager
    def stats(self, containers: Sequence[str]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for container in containers:
                connection = stack.enter_context(contextlib.closing(_UnixConnection(self._api)))
                connection.request("GET", f"/containers/{quote(container)}/stats?stream=1")
                answer = connection.getresponse()
                # Ended by closing the connection.
                threading.Thread(target=_drain, args=[answer], daemon=True).start()
            yield

    @property
    def services(self) -> set[int]:
        return {pid for pid in self._namespace.processes() if processes.name_of(pid) in ("dockerd", "containerd")}

    def process(self, container: str) -> int:
        return int(self._call("GET", f"/containers/{quote(container)}/json")["State"]["Pid"])

    def start_steps(self, containers: Sequence[str]) -> Sequence[Mapping[str, float]]:
        return []

    def answers(self) -> bool:
        try:
            self._call("GET", "/version")
        except (OSError, http.client.HTTPException):
            self._connection("call").close()
            return False
        return True

    def _call(self, method: str, path: str, body: Mapping[str, object] | BinaryIO | None = None) -> Any:
        connection = self._connection("call")
        if body is None or isinstance(body, Mapping):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
        else:
            connection.request(method, path, body, {"Content-Type": "application/x-tar"}, encode_chunked=True)
        return _content(connection.getresponse())

    def _connection(self, purpose: str) -> http.client.HTTPConnection:
        connection = getattr(self._connections, purpose, None)
        if connection is None:
            connection = _UnixConnection(self._api)
            setattr(self._connections, purpose, connection)
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CALL_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _until_blank_line(stream: socket.socket) -> None:
    seen = b""
    while not seen.endswith(b"\r\n\r\n"):
        seen += _receive(stream, 1)


def _receive(stream: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        if not (chunk := stream.recv(size - len(received))):
            raise RuntimeError("dockerd ended the stream")
        received += chunk
    return received


def _drain(answer: http.client.HTTPResponse) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
        while answer.read1(65536):
            pass


def _content(answer: http.client.HTTPResponse) -> Any:
    content = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"dockerd answered {answer.status} {answer.reason}: {content.decode(errors='replace')}")
    return json.loads(content) if content else None


@contextlib.contextmanager
def docker_engine(directory: Path) -> Iterator[DockerEngine]:
    """A dockerd whose files all live in `directory` and which is gone, containers and all, at the end."""
    directory.mkdir(mode=0o700)
    api = directory / "docker.sock"
    log = directory / "dockerd.log"
    argv = [
        "dockerd",
        f"--host=unix://{api}",
        f"--data-root={directory / 'data'}",
        f"--exec-root={directory / 'exec'}",
        f"--pidfile={directory / 'pid'}",
        f"--cgroup-parent=/{CGROUP}",
    ]
    with contextlib.ExitStack() as stack:
        stack.callback(cgroups.remove, CGROUP)
        namespace = stack.enter_context(network_namespace(directory / "netns"))
        daemon = stack.enter_context(namespace.daemon(argv, log=log))
        engine = DockerEngine(api=api, namespace=namespace)
        await_ready(engine.answers, daemons=[(daemon, log)], timeout=_READY_TIMEOUT)
        yield engine


_: type[Engine] = DockerEngine
