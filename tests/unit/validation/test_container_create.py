"""The create request as a whole: all violations at once, defaults, warnings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api_service.records.config import (
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    RestartPolicy,
)
from api_service.validation.capabilities import CAPABILITIES
from api_service.validation.container_create import Creation, normalise, validate_create, warnings
from api_service.validation.host_facts import HostFacts

_FACTS = HostFacts(
    runtimes=("crun", "runc"), capabilities=frozenset(CAPABILITIES), cgroup_layout="v2", seccomp=True, init=True
)
_CONFIG = ContainerConfig(image="busybox")


def _fields(
    config: ContainerConfig = _CONFIG,
    host_config: HostConfig | None = None,
    networking_config: NetworkingConfig | None = None,
) -> list[str]:
    violations = validate_create(config, host_config or HostConfig(), networking_config or NetworkingConfig(), _FACTS)
    assert all(violation.description for violation in violations)
    return [violation.field for violation in violations]


def test_least_request_is_valid() -> None:
    assert _fields() == []


def test_full_request_is_valid() -> None:
    config = ContainerConfig(
        image="registry.example/team/app:1", hostname="web", domainname="example.org", user="1000:1000", tty=True,
        env=("A=1", "B"), cmd=("x",), entrypoint=("/bin/sh",), working_dir="/srv", labels={"": "", "a": "b"},
        stop_signal="RTMIN+3", stop_timeout=-1, exposed_ports=("80/tcp", "1000-1010/udp"),
    )  # fmt: skip
    host_config = HostConfig(
        network_mode="bridge", dns=("1.1.1.1",), dns_search=("example.org",), dns_options=("ndots:2",),
        extra_hosts=("db:10.0.0.5", "gw:host-gateway"), auto_remove=True, log_config=LogConfig(type="json-file"),
        runtime="runc", readonly_rootfs=True, shm_size=1, annotations={"org.example.owner": "me"},
    )  # fmt: skip
    endpoints = NetworkingConfig(endpoints={"bridge": EndpointSettings(mac_address="02:42:ac:11:00:02")})
    assert _fields(config, host_config, endpoints) == []


@pytest.mark.parametrize(
    ("change", "field", "sentence"),
    [
        ({"image": "Image"}, "image", "must be lower-case"),
        ({"image": "no image"}, "image", "is not an image name like 'busybox'"),
        ({"domainname": "a" * 64}, "domainname", "at most 63 characters (RFC 1123)"),
        ({"user": "a:b:c"}, "user", "write uid, uid:gid, name or name:group, without blanks"),
        ({"user": "0:2147483648"}, "user", "the id 2147483648 is larger than 2147483647, the largest there is"),
        ({"env": ("A=1", "B=" + "x" * 2**17)}, "env[1]", "the kernel allows"),
        ({"cmd": ("a" * 2**17,)}, "cmd[0]", "the kernel allows 131072 for one argument; pass a file instead"),
        ({"entrypoint": ("a", "a" * 2**17)}, "entrypoint[1]", "pass a file instead"),
        ({"shell": ("a" * 2**17,)}, "shell[0]", "pass a file instead"),
        ({"working_dir": "/proc/self/fd/7"}, "working_dir", "choose a directory of the image"),
        (
            {"stop_signal": "SIGNOPE"},
            "stop_signal",
            "give a name like SIGTERM, TERM or RTMIN+3, or a number from 1 to 64",
        ),
        ({"exposed_ports": ("http",)}, "exposed_ports[0]", "is not port or port/protocol, like '80/tcp'"),
        ({"exposed_ports": ("80", "90-80")}, "exposed_ports[1]", "begins after its end"),
        ({"exposed_ports": ("65536",)}, "exposed_ports[0]", "outside the ports 1 to 65535"),
        ({"exposed_ports": ("80/icmp",)}, "exposed_ports[0]", "names the protocol 'icmp'"),
        ({"volumes": ("data",)}, "volumes[0]", "begin it with '/'"),
        ({"volumes": ("/",)}, "volumes[0]", "the container's root"),
    ],
)
def test_each_field_of_config(change: dict[str, object], field: str, sentence: str) -> None:
    config = replace(_CONFIG, **change)  # type: ignore[arg-type]  # a table of any field
    [violation] = validate_create(config, HostConfig(), NetworkingConfig(), _FACTS)
    assert violation.field == f"config.{field}"
    assert sentence in violation.description


@pytest.mark.parametrize(
    ("host_config", "field", "sentence"),
    [
        (
            HostConfig(network_mode="container:"),
            "network_mode",
            "give 'bridge', 'host', 'none', 'container:<name or id>'",
        ),
        (HostConfig(network_mode="my net"), "network_mode", "or the name or id"),
        (HostConfig(dns=("x",)), "dns[0]", "'x' is not an IPv4 or IPv6 address"),
        (HostConfig(dns_search=("a b",)), "dns_search[0]", "'a b'"),
        (HostConfig(dns_search=(".", "a")), "dns_search[0]", "'.'"),
        (HostConfig(dns_options=("a b",)), "dns_options[0]", "'a b'"),
        (HostConfig(extra_hosts=("x",)), "extra_hosts[0]", "name:address"),
        (HostConfig(extra_hosts=("x:1.1.1.999",)), "extra_hosts[0]", "'1.1.1.999'"),
        (HostConfig(log_config=LogConfig(type="syslog")), "log_config.type", "use 'json-file'"),
        (HostConfig(log_config=LogConfig(config={"a": "b"})), 'log_config.config["a"]', "it has 'max-size'"),
        (HostConfig(runtime="kata"), "runtime", "the node has no runtime 'kata'; it has 'crun', 'runc'"),
        (
            HostConfig(annotations={"run.oci.hooks.stdout": "x"}),
            'annotations["run.oci.hooks.stdout"]',
            "command the OCI runtime and are not for containers to set",
        ),
        (
            HostConfig(annotations={"org.systemd.property.ExecStartPre": "x"}),
            'annotations["org.systemd.property.ExecStartPre"]',
            "'org.systemd.'",
        ),
        (HostConfig(annotations={"a b": "x"}), 'annotations["a b"]', "one word of at most 255 printable ASCII"),
        (HostConfig(annotations={"a": "x\0"}), 'annotations["a"]', "holds a NUL character"),
        (HostConfig(annotations={"module.wasm.image": "x"}), 'annotations["module.wasm.image"]', "command the OCI"),
        (HostConfig(dns_options=("a" * 256,)), "dns_options[0]", "write a word or word:number"),
        (HostConfig(masked_paths=("//a",)), "masked_paths.paths[0]", "doubled slashes"),
        (HostConfig(cgroup_parent="a"), "cgroup_parent", "absolute"),
        (HostConfig(cgroup_parent="/a/../b"), "cgroup_parent", "'/a/../b'"),
        (HostConfig(oom_score_adj=1001), "oom_score_adj", "give -1000 (never) to 1000 (first)"),
        (HostConfig(storage_opt={"size": "big"}), 'storage_opt["size"]', "like '10g'"),
        (HostConfig(volumes_from=("",)), "volumes_from[0]", "names no container"),
    ],
)
def test_each_field_of_host_config(host_config: HostConfig, field: str, sentence: str) -> None:
    [violation] = validate_create(_CONFIG, host_config, NetworkingConfig(), _FACTS)
    assert violation.field == f"host_config.{field}"
    assert sentence in violation.description


@pytest.mark.parametrize(
    ("settings", "field", "sentence"),
    [
        (EndpointSettings(ipv4_address="fd00::9"), "ipv4_address", "IPv4"),
        (EndpointSettings(ipv6_address="10.0.0.1"), "ipv6_address", "IPv6"),
        (EndpointSettings(aliases=("a b",)), "aliases[0]", "'a b'"),
        (EndpointSettings(mac_address="00:00:00:00:00:00"), "mac_address", "no address"),
    ],
)
def test_each_field_of_an_endpoint(settings: EndpointSettings, field: str, sentence: str) -> None:
    networking = NetworkingConfig(endpoints={"mynet": settings})
    [violation] = validate_create(_CONFIG, HostConfig(network_mode="mynet"), networking, _FACTS)
    assert violation.field == f'networking_config.endpoints_config["mynet"].{field}'
    assert sentence in violation.description


def test_everything_wrong_is_reported_at_once_in_order() -> None:
    assert _fields(
        ContainerConfig(image="A", user="a:b:c", stop_signal="x", working_dir="/proc/self/fd/7"),
        HostConfig(network_mode="bridge", extra_hosts=("x", "y"), runtime="kata"),
        NetworkingConfig(endpoints={"bridge": EndpointSettings(aliases=("db",), mac_address="00:00:00:00:00:00")}),
    ) == [
        "config.image",
        "config.user",
        "config.working_dir",
        "config.stop_signal",
        "host_config.extra_hosts[0]",
        "host_config.extra_hosts[1]",
        "host_config.runtime",
        'networking_config.endpoints_config["bridge"].aliases',
        'networking_config.endpoints_config["bridge"].mac_address',
    ]


def test_what_breaks_a_rule_of_the_protocol_breaks_none_here() -> None:
    """Else the answer would tell the same fault twice."""
    config = ContainerConfig(
        image="", hostname="_", domainname="-", user="a" * 257, env=("", "=x", "\0"), cmd=("\0",),
        entrypoint=("\0",), working_dir="x", stop_timeout=-5,
    )  # fmt: skip
    host_config = HostConfig(shm_size=-1, annotations={"": "x"})
    endpoints = NetworkingConfig(endpoints={"bridge": EndpointSettings(mac_address="01:00:5e:00:00:01")})
    assert _fields(config, host_config, endpoints) == []


def test_unknown_runtime_names_the_known() -> None:
    [violation] = validate_create(_CONFIG, HostConfig(runtime="kata"), NetworkingConfig(), _FACTS)
    assert "'kata'" in violation.description
    assert "'crun', 'runc'" in violation.description


@pytest.mark.parametrize("mode", ["bridge", "host", "none"])
def test_matrix_rows_that_these_modes_allow(mode: str) -> None:
    config = replace(_CONFIG, hostname="web", exposed_ports=("80",))
    host_config = HostConfig(network_mode=mode, dns=("1.1.1.1",), dns_search=("a",), extra_hosts=("a:1.1.1.1",))
    assert _fields(config=config, host_config=host_config) == []


def _normalise(
    config: ContainerConfig = _CONFIG,
    host_config: HostConfig | None = None,
    networking_config: NetworkingConfig | None = None,
    name: str = "",
) -> Creation:
    return normalise(name, config, host_config or HostConfig(), networking_config or NetworkingConfig(), _FACTS)


def test_defaults() -> None:
    assert _normalise() == Creation(
        name="",
        config=replace(_CONFIG, stop_timeout=10),
        host_config=HostConfig(
            network_mode="bridge",
            log_config=LogConfig(type="json-file", config={"max-size": "10m", "max-file": "5"}),
            runtime="crun",
            shm_size=64 * 1024 * 1024,
            ipc_mode="private",
            cgroupns_mode="private",
            sysctls={"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
            init=True,
            restart_policy=RestartPolicy(
                name="no", initial_delay=100_000_000, max_delay=60_000_000_000, multiplier=2, reset_after=10_000_000_000
            ),
        ),
        networking_config=NetworkingConfig(),
    )


def test_what_was_asked_for_stays_in_its_normal_form() -> None:
    creation = _normalise(
        replace(_CONFIG, stop_timeout=0, working_dir="//srv/./x/", exposed_ports=("80", "90-91/UDP")),
        HostConfig(network_mode="default", runtime="runc", shm_size=1),
        NetworkingConfig(endpoints={"default": EndpointSettings(mac_address="02:AB:00:00:00:01")}),
        name="/web",
    )
    assert creation.name == "web"
    assert creation.config.stop_timeout == 0
    assert creation.config.working_dir == "/srv/x"
    assert creation.config.exposed_ports == ("80/tcp", "90-91/udp")
    assert (creation.host_config.network_mode, creation.host_config.runtime) == ("bridge", "runc")
    assert creation.host_config.shm_size == 1
    assert creation.networking_config.endpoints == {"bridge": EndpointSettings(mac_address="02:ab:00:00:00:01")}


def test_normal_form_is_stable() -> None:
    first = _normalise(replace(_CONFIG, exposed_ports=("1-3",)), HostConfig(network_mode="none"))
    assert normalise(first.name, first.config, first.host_config, first.networking_config, _FACTS) == first


@pytest.mark.parametrize(
    ("mode", "forwarding", "ports", "mac", "expected"),
    [
        ("bridge", True, ("80",), "02:00:00:00:00:01", []),
        ("bridge", False, (), "", ["IPv4 forwarding"]),
        ("host", False, (), "", []),
        ("none", False, (), "", []),
        ("host", True, ("80",), "", ["exposed_ports"]),
        ("none", True, ("80",), "02:00:00:00:00:01", ["exposed_ports", "mac_address"]),
    ],
)
def test_warnings(mode: str, forwarding: bool, ports: tuple[str, ...], mac: str, expected: list[str]) -> None:
    creation = _normalise(
        replace(_CONFIG, exposed_ports=ports),
        HostConfig(network_mode=mode),
        NetworkingConfig(endpoints={mode: EndpointSettings(mac_address=mac)}),
    )
    found = warnings(creation, replace(_FACTS, ipv4_forwarding=forwarding))
    assert len(found) == len(expected)
    for text, word in zip(found, expected, strict=True):
        assert word in text
