from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_service.container import ContainerSpec, EndpointSpec, LogLimits, NameResolution, NetworkMode
from executor_service.operations.container_rules import (
    id_violations,
    image_id_violations,
    signal_violations,
    start_id_violations,
    violations,
)
from tests.fixtures.fake_host.specs import container_spec

_ENDPOINT = EndpointSpec(network_id="bridge", mac_address="02:42:ac:11:00:02", ipv4_address="10.0.0.9")
_GOOD = replace(
    container_spec(), env=("A=b",), network_mode=NetworkMode.BRIDGE, endpoints=(_ENDPOINT,), user="nobody:users"
)


def with_endpoint(**changes: Any) -> ContainerSpec:
    return replace(_GOOD, endpoints=(replace(_ENDPOINT, **changes),))


def test_a_good_specification_breaks_no_rule() -> None:
    assert violations(_GOOD) == []
    assert (
        violations(replace(_GOOD, image_id="", hostname="", env=(), network_mode=NetworkMode.NONE, endpoints=())) == []
    )


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (replace(_GOOD, id="../x"), "id"),
        (replace(_GOOD, id="A" * 64), "id"),
        (replace(_GOOD, id="a" * 64 + "\n"), "id"),
        (replace(_GOOD, image_id="busybox"), "image_id"),
        (replace(_GOOD, args=()), "args"),
        (replace(_GOOD, args=("",)), "args"),
        (replace(_GOOD, args=("a", "b\0c")), "args[1]"),
        (replace(_GOOD, args=("a", "x" * (128 * 1024))), "args[1]"),
        (replace(_GOOD, env=("A=b", "NOVALUE")), "env[1]"),
        (replace(_GOOD, env=("=b",)), "env[0]"),
        (replace(_GOOD, env=("A=\0",)), "env[0]"),
        (replace(_GOOD, working_dir="srv"), "working_dir"),
        (replace(_GOOD, working_dir=""), "working_dir"),
        (replace(_GOOD, working_dir="/proc/self/fd/7"), "working_dir"),
        (replace(_GOOD, working_dir="//proc/./self/fd/../fd/7"), "working_dir"),
        (replace(_GOOD, user="a\nb"), "user"),
        (replace(_GOOD, hostname="a b"), "hostname"),
        (replace(_GOOD, hostname="-a"), "hostname"),
        (replace(_GOOD, hostname="a" * 65), "hostname"),
        (replace(_GOOD, hostname="a\n10.0.0.1 evil"), "hostname"),
        (replace(_GOOD, domainname="a/b"), "domainname"),
        (replace(_GOOD, shm_size=0), "shm_size"),
        (replace(_GOOD, network_mode=NetworkMode.NONE), "endpoints"),
        (replace(_GOOD, endpoints=(_ENDPOINT, _ENDPOINT)), "endpoints[1].network_id"),
        (with_endpoint(network_id="../x"), "endpoints[0].network_id"),
        (with_endpoint(mac_address="01:00:5e:00:00:01"), "endpoints[0].mac_address"),
        (with_endpoint(mac_address="02:42"), "endpoints[0].mac_address"),
        (with_endpoint(ipv4_address="fd00::1"), "endpoints[0].ipv4_address"),
        (with_endpoint(ipv6_address="10.0.0.1"), "endpoints[0].ipv6_address"),
        (with_endpoint(dns_names=("a b",)), "endpoints[0].dns_names[0]"),
        (replace(_GOOD, network_container="ab" * 32), "network_container"),
        (replace(_GOOD, network_mode=NetworkMode.CONTAINER, endpoints=()), "network_container"),
        (replace(_GOOD, log=LogLimits(max_size=-1)), "log_max_size"),
        (replace(_GOOD, root_size=-1), "root_size"),
        (replace(_GOOD, log=LogLimits(buffer=-1)), "log_buffer_size"),
        (replace(_GOOD, log=LogLimits(buffer=1024**3 + 1)), "log_buffer_size"),
        (replace(_GOOD, log=LogLimits(buffer=1, disabled=True)), "log_buffer_size"),
        (replace(_GOOD, log=LogLimits(max_files=0)), "log_max_files"),
        (replace(_GOOD, runtime="../crun"), "runtime"),
        (replace(_GOOD, names=NameResolution(servers=("dns.example",))), "dns_servers[0]"),
        (replace(_GOOD, names=NameResolution(servers=("fe80::1%eth0",))), "dns_servers[0]"),
        (replace(_GOOD, names=NameResolution(search=("a b",))), "dns_search[0]"),
        (replace(_GOOD, names=NameResolution(options=("",))), "dns_options[0]"),
        (replace(_GOOD, names=NameResolution(extra_hosts=(("a\tb", "10.0.0.1"),))), "extra_hosts[0].name"),
        (replace(_GOOD, names=NameResolution(extra_hosts=(("#a", "10.0.0.1"),))), "extra_hosts[0].name"),
        (replace(_GOOD, names=NameResolution(extra_hosts=(("a", "there"),))), "extra_hosts[0].address"),
        (replace(_GOOD, annotations={"run.oci.handler": "x"}), "annotations['run.oci.handler']"),
        (replace(_GOOD, annotations={"a b": "x"}), "annotations['a b']"),
    ],
)
def test_each_broken_rule_is_named(broken: ContainerSpec, field: str) -> None:
    assert [violation.field for violation in violations(broken)] == [f"spec.{field}"]


def test_every_broken_rule_is_told() -> None:
    broken = replace(_GOOD, id="", args=(), working_dir="x", shm_size=-1, network_container="x" * 64, endpoints=())
    assert len(violations(broken)) == 6


@pytest.mark.parametrize("names", [("db", "host-gateway"), ("db", "::1")])
def test_extra_hosts_that_are_good(names: tuple[str, str]) -> None:
    assert violations(replace(_GOOD, names=NameResolution(extra_hosts=(names,)))) == []


@given(st.text(max_size=80))
def test_nothing_but_hexadecimal_is_an_id(text: str) -> None:
    good = len(text) == 64 and set(text) <= set("0123456789abcdef")
    assert bool(id_violations(text)) != good


@pytest.mark.parametrize(("number", "good"), [(0, False), (1, True), (64, True), (65, False), (-9, False)])
def test_signals(number: int, good: bool) -> None:
    assert bool(signal_violations(number)) != good


@pytest.mark.parametrize(
    ("text", "good"), [("", False), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("é", False)]
)
def test_start_ids(text: str, good: bool) -> None:
    assert bool(start_id_violations(text)) != good


def test_image_ids() -> None:
    assert image_id_violations("sha256:" + "0" * 64) == []
    assert image_id_violations("sha512:" + "0" * 64)
    assert image_id_violations("")
