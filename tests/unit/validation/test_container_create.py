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
    ("change", "field"),
    [
        ({"image": "No Image"}, "config.image"),
        ({"domainname": "a" * 64}, "config.domainname"),
        ({"user": "a:b:c"}, "config.user"),
        ({"env": ("A=1", "B=" + "x" * 2**17)}, "config.env[1]"),
        ({"cmd": ("a" * 2**17,)}, "config.cmd[0]"),
        ({"entrypoint": ("a", "a" * 2**17)}, "config.entrypoint[1]"),
        ({"working_dir": "/proc/self/fd/7"}, "config.working_dir"),
        ({"stop_signal": "SIGNOPE"}, "config.stop_signal"),
        ({"exposed_ports": ("http",)}, "config.exposed_ports[0]"),
    ],
)
def test_each_field_of_config(change: dict[str, object], field: str) -> None:
    assert _fields(config=replace(_CONFIG, **change)) == [field]  # type: ignore[arg-type]  # a table of any field


@pytest.mark.parametrize(
    ("host_config", "field"),
    [
        (HostConfig(network_mode="container:"), "host_config.network_mode"),
        (HostConfig(network_mode="my net"), "host_config.network_mode"),
        (HostConfig(dns=("x",)), "host_config.dns[0]"),
        (HostConfig(dns_search=("a b",)), "host_config.dns_search[0]"),
        (HostConfig(dns_options=("a b",)), "host_config.dns_options[0]"),
        (HostConfig(extra_hosts=("x",)), "host_config.extra_hosts[0]"),
        (HostConfig(log_config=LogConfig(type="syslog")), "host_config.log_config.type"),
        (HostConfig(log_config=LogConfig(config={"a": "b"})), 'host_config.log_config.config["a"]'),
        (HostConfig(runtime="kata"), "host_config.runtime"),
        (HostConfig(annotations={"run.oci.hooks.stdout": "x"}), 'host_config.annotations["run.oci.hooks.stdout"]'),
        (
            HostConfig(annotations={"org.systemd.property.ExecStartPre": "x"}),
            'host_config.annotations["org.systemd.property.ExecStartPre"]',
        ),
    ],
)
def test_each_field_of_host_config(host_config: HostConfig, field: str) -> None:
    assert _fields(host_config=host_config) == [field]


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
