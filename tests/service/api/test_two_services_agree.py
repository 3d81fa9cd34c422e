"""What the API accepts the executor does not refuse: each checks for itself, and neither is stricter by mistake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
from slipway.executor.v1 import container_spec_pb2 as executor_pb2
from slipway.v1 import container_pb2, mount_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb2

from api_service.conversion.container_config import config_from_proto
from api_service.conversion.executor.container_spec import spec_to_proto
from api_service.conversion.host_config import host_config_from_proto
from api_service.operations.container_spec import container_spec
from api_service.records.config import HostConfig, NetworkingConfig
from api_service.records.container import ContainerRecord, Phase
from api_service.validation.capabilities import CAPABILITIES
from api_service.validation.container_create import normalise, validate_create
from api_service.validation.host_facts import HostFacts
from common.request_rules import RequestRules
from executor_service.conversion.container_spec import spec_from_proto
from executor_service.operations.container_rules import violations
from tests.fixtures.api import Api

Config, Host, Mount = container_pb2.ContainerConfig, container_pb2.HostConfig, mount_pb2.Mount
FACTS = HostFacts(
    runtimes=("crun",), capabilities=frozenset(CAPABILITIES), cgroup_layout="v1", seccomp=True, apparmor=True, init=True
)
# On the edge of one rule or another.
TEXTS = (
    *("a", "A", "_a", "a_", "a.b", "a-b", "-a", ".a", "a.", "a b", " a", "a\n", "a\tb", "\x7f", "é", "🙂", "#", "a#b"),
    *("a:b", "a=b", "=", ":", "/", "/a", "//a", "/a/", "/a//b", "/a/./b", "/a/../b", "/a\n", "/é", "~", "%", "'", '"'),
    *(
        "0",
        "00",
        "1",
        "-1",
        "+1",
        "1.5",
        "4294967295",
        "2147483647",
        "2147483648",
        "0x1",
        "1e3",
        "٣",
        "a" * 63,
        "a" * 64,
    ),
    *("a" * 65, "a" * 128, "a" * 255, "a" * 256, "a" * 1024, "/" + "a" * 255, "/" + "a" * 4094, "a." * 100),
    *(
        "root",
        "all",
        "none",
        "host",
        "private",
        "rw",
        "rwm",
        "nofile",
        "crun",
        "module.wasm.image",
        "org.criu.config",
        "io.crun.x",
    ),
    *(
        "net.ipv4.ip_forward",
        "net.ipv4.conf.eth0/1.mtu",
        "kernel.msgmax",
        "fs.mqueue.x",
        "kernel.domainname",
        "net.a.B",
    ),
    *("10.0.0.1", "fd00::1", "::1", "::ffff:10.0.0.1", "fe80::1%eth0", "0.0.0.0", "example.com/gadget=one", "v/c=a:b"),
)


def requests() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(field, of the portable part, of the host's part)."""
    for text in TEXTS:
        for name in ("hostname", "domainname", "user", "working_dir"):
            yield name, {name: text}, {}
        for name in ("env", "cmd", "exposed_ports"):
            yield name, {name: [text]}, {}
        yield "env", {"env": [f"{text}=x"]}, {}
        yield "env", {"env": [f"A={text}"]}, {}
        for name in ("cgroup_parent", "runtime", "ipc_mode", "pid_mode", "uts_mode", "userns_mode", "cgroupns_mode"):
            yield name, {}, {name: text}
        for name in ("dns", "dns_search", "dns_options", "extra_hosts", "cap_add", "security_opt", "group_add"):
            yield name, {}, {name: [text]}
        for host in (f"{text}:10.0.0.1", f"a:{text}"):
            yield "extra_hosts", {}, {"extra_hosts": [host]}
        for key, value in ((text, "1"), ("net.ipv4.x", text)):
            yield "sysctls", {}, {"sysctls": {key: value}}
        for key, value in ((text, "1"), ("a", text)):
            yield "annotations", {}, {"annotations": {key: value}}
        for rule in (text, f"c {text}:1 r", f"c 1:{text} r", f"c 1:1 {text}"):
            yield "device_cgroup_rules", {}, {"device_cgroup_rules": [rule]}
        for device in ({"path_on_host": text}, {"path_on_host": "/dev/a", "path_in_container": text}):
            yield "devices", {}, {"devices": [resources_pb2.DeviceMapping(**device)]}
        yield "device_requests", {}, {"device_requests": [resources_pb2.DeviceRequest(driver="cdi", device_ids=[text])]}
        yield "ulimits", {}, {"ulimits": [resources_pb2.Ulimit(name=text, soft=1, hard=1)]}
        for paths in ("masked_paths", "readonly_paths"):
            yield paths, {}, {paths: container_pb2.PathList(paths=[text])}
        yield "security_opt", {}, {"security_opt": [f"apparmor={text}"]}
        yield "port_bindings", {}, {"port_bindings": {"80": _published(text, "")}}
        yield "port_bindings", {}, {"port_bindings": {"80": _published("", text)}}
        for option in ("max-size", "max-file", "max-buffer-size"):
            options = {"mode": "non-blocking", option: text}
            yield "log_config", {}, {"log_config": container_pb2.LogConfig(config=options)}


def mounts() -> Iterator[dict[str, Any]]:
    bind, volume, tmpfs = mount_pb2.BindOptions, mount_pb2.VolumeOptions, mount_pb2.TmpfsOptions
    for text in TEXTS:
        for written in (f"{text}:/data", f"/srv:{text}", f"/srv:/data:{text}"):
            yield {"binds": [written]}
        for path, options in ((text, ""), ("/run", text), ("/run", f"size={text}")):
            yield {"tmpfs": {path: options}}
        yield {"mounts": [Mount(type="bind", source=text, target="/data")]}
        yield {"mounts": [Mount(type="volume", source="vol", target="/d", volume_options=volume(subpath=text))]}
        yield {"mounts": [Mount(type="tmpfs", target="/d", tmpfs_options=tmpfs(options=[text]))]}
        yield {"mounts": [Mount(type="bind", source="/s", target="/d", bind_options=bind(propagation=text))]}


def _published(address: str, port: str) -> container_pb2.PortBindings:
    return container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_ip=address, host_port=port)])


def spec_of(request: pb2.CreateContainerRequest) -> executor_pb2.ContainerSpec | None:
    """What the node would be asked for; None for a request that is refused."""
    config, host = config_from_proto(request.config), host_config_from_proto(request.host_config)
    if RequestRules().violations(request) or validate_create(config, host, NetworkingConfig(), FACTS):
        return None
    creation = normalise("", config, host, NetworkingConfig(), FACTS)
    record = ContainerRecord(
        id="ab" * 32,
        name="web",
        created_at=0,
        phase=Phase.READY,
        path="sleep",
        args=creation.config.cmd,
        config=replace(
            creation.config,
            hostname=creation.config.hostname or "abab",
            working_dir=creation.config.working_dir or "/",
            stop_signal=creation.config.stop_signal or "SIGTERM",
        ),
        host_config=_without_names(creation.host_config),
        networking_config=creation.networking_config,
        image_id="sha256:" + "cd" * 32,
        node="local",
        platform="linux/amd64",
    )
    return spec_to_proto(container_spec(record))


def _without_names(host: HostConfig) -> HostConfig:
    """Other containers are looked up before the node is asked; there is none here."""
    own = {name: "" for name in ("ipc_mode", "pid_mode") if getattr(host, name).startswith("container:")}
    return replace(host, **own)  # type: ignore[arg-type]  # two fields that are texts


def test_nothing_that_is_accepted_is_refused_by_the_node() -> None:
    accepted: set[str] = set()
    fields: set[str] = set()
    wrong: list[str] = []
    for field, config, host in requests():
        fields.add(field)
        request = pb2.CreateContainerRequest(
            config=Config(**{"image": "busybox", "cmd": ["sleep"], **config}), host_config=Host(**host)
        )
        if (spec := spec_of(request)) is None:
            continue
        accepted.add(field)
        refused = violations(spec_from_proto(spec))
        wrong += [f"{config}{host}: {each.field} {each.description}"[:300] for each in refused]
    assert wrong == []
    assert fields == accepted  # or nothing was shown


async def test_no_mount_that_is_accepted_is_refused_by_the_node(api: Api) -> None:
    wrong: list[str] = []
    count = 0
    for host in mounts():
        request = pb2.CreateContainerRequest(config=Config(image="busybox", cmd=["sleep"]), host_config=Host(**host))
        try:
            created = await api.containers.CreateContainer(request)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
            continue
        count += 1
        refused = violations(spec_from_proto(api.executor.containers[created.id].spec))
        wrong += [f"{host}: {each.field} {each.description}"[:300] for each in refused]
    assert wrong == []
    assert count > 50
