"""Privileges and surroundings of a request: every rule by its field and sentence, the defaults, what to warn of."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from api_service.records.config import ContainerConfig, HostConfig
from api_service.records.resources import DeviceMapping, DeviceRequest, Ulimit
from api_service.validation.capabilities import CAPABILITIES
from api_service.validation.device_requests import validate_device_requests
from api_service.validation.host_facts import HostFacts
from api_service.validation.network_mode import effective_network, validate_network_disabled
from api_service.validation.privileges import normalise_privileges, privilege_warnings, validate_privileges
from api_service.validation.remapped_users import validate_remapped
from common.errors import Violation

FACTS = HostFacts(
    runtimes=("crun",),
    capabilities=frozenset(CAPABILITIES),
    cgroup_layout="v1",
    seccomp=True,
    apparmor=False,
    init=True,
)


def faults(
    config: ContainerConfig | None = None, *, facts: HostFacts = FACTS, network_mode: str = "bridge", **host: Any
) -> dict[str, str]:
    found = validate_privileges(
        config or ContainerConfig(), HostConfig(**host), facts, network_mode=network_mode, field="host_config"
    )
    assert len({violation.field for violation in found}) == len(found)
    return {violation.field.removeprefix("host_config."): violation.description for violation in found}


def test_everything_at_once_is_valid() -> None:
    assert (
        faults(
            cap_add=("ALL", "net_admin", "CAP_SYS_TIME"),
            cap_drop=("chown",),
            security_opt=(
                *(
                    "no-new-privileges",
                    "seccomp=builtin",
                    "apparmor=unconfined",
                    "label=disable",
                    "systempaths=unconfined",
                ),
                "writable-cgroups=false",
            ),
            group_add=("users", "12"),
            ipc_mode="container:x",
            pid_mode="container:x",
            userns_mode="host",
            cgroupns_mode="private",
            sysctls={"net.ipv4.conf.all.forwarding": "1", "kernel.domainname": "x"},
            ulimits=(Ulimit(name="nofile", soft=1, hard=2), Ulimit(name="core", soft=-1, hard=-1)),
            devices=(
                DeviceMapping(path_on_host="/dev/a"),
                DeviceMapping(path_on_host="/dev/a", path_in_container="/b"),
            ),
            device_cgroup_rules=("a *:* rwm", "c 1:3 r", "b 8:* m"),
            init=False,
        )
        == {}
    )


_PROFILE = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_NOTIFY"}]})
_SOCKET = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"})


@pytest.mark.parametrize(
    ("asked", "field", "sentence"),
    [
        ({"cap_add": ("SYS_EVERYTHING",)}, "cap_add[0]", "is not a capability"),
        ({"cap_drop": ("ALL", "")}, "cap_drop[1]", "is not a capability"),
        ({"security_opt": ("secure",)}, "security_opt[0]", "known are no-new-privileges"),
        ({"security_opt": ("no-new-privileges=maybe",)}, "security_opt[0]", "neither true nor false"),
        ({"security_opt": ("writable-cgroups=2",)}, "security_opt[0]", "neither true nor false"),
        ({"security_opt": ("label=disable", "label=disable")}, "security_opt[1]", "given twice"),
        ({"security_opt": ("label=type:x",)}, "security_opt[0]", "label=disable"),
        ({"security_opt": ("apparmor=mine",)}, "security_opt[0]", "no AppArmor"),
        ({"security_opt": ("apparmor=",)}, "security_opt[0]", "name of a loaded profile"),
        ({"security_opt": ("systempaths",)}, "security_opt[0]", "systempaths=unconfined"),
        ({"security_opt": ("seccomp=/etc/profile.json",)}, "security_opt[0]", "not the name of its file"),
        ({"security_opt": ("seccomp={",)}, "security_opt[0]", "is not JSON"),
        ({"security_opt": ("seccomp={}",)}, "security_opt[0]", "defaultAction: is missing"),
        ({"security_opt": (f"seccomp={_PROFILE}",)}, "security_opt[0]", "syscalls[0].action: 'SCMP_ACT_NOTIFY'"),
        ({"security_opt": (f"seccomp={_SOCKET}",)}, "security_opt[0]", "listenerPath"),
        ({"masked_paths": ("etc",)}, "masked_paths.paths[0]", "absolute path"),
        ({"readonly_paths": ("/a", "/a/../b")}, "readonly_paths.paths[1]", "without '.'"),
        (
            {"masked_paths": ("/a",), "security_opt": ("systempaths=unconfined",)},
            "masked_paths",
            "contradicts security_opt",
        ),
        ({"group_add": ("a:b",)}, "group_add[0]", "neither the name nor the number"),
        ({"group_add": ("4294967295",)}, "group_add[0]", "larger than"),
        ({"ipc_mode": "public"}, "ipc_mode", "is not a mode"),
        ({"ipc_mode": "container:"}, "ipc_mode", "name the container"),
        ({"pid_mode": "private"}, "pid_mode", "'container:<container>'"),
        ({"uts_mode": "container:x"}, "uts_mode", "is not a mode"),
        ({"userns_mode": "remap"}, "userns_mode", "is not a mode"),
        ({"cgroupns_mode": "none"}, "cgroupns_mode", "is not a mode"),
        ({"cgroupns_mode": "private", "privileged": True}, "cgroupns_mode", "cgroup v1"),
        ({"sysctls": {"kernel.panic": "1"}}, 'sysctls["kernel.panic"]', "no parameter of a container's own"),
        ({"sysctls": {"net/../kernel.panic": "1"}}, 'sysctls["net/../kernel.panic"]', "is not the name"),
        ({"sysctls": {"net...x": "1"}}, 'sysctls["net...x"]', "is not the name"),
        ({"sysctls": {"net.x": "1\n2"}}, 'sysctls["net.x"]', "one line"),
        ({"sysctls": {"kernel.sem": "1"}, "ipc_mode": "host"}, 'sysctls["kernel.sem"]', "needs an IPC namespace"),
        ({"sysctls": {"fs.mqueue.x": "1"}, "ipc_mode": "container:x"}, 'sysctls["fs.mqueue.x"]', "needs an IPC"),
        ({"sysctls": {"kernel.domainname": "x"}, "uts_mode": "host"}, 'sysctls["kernel.domainname"]', "the node's"),
        ({"ulimits": (Ulimit(name="files", soft=1, hard=1),)}, "ulimits[0].name", "is not a limit"),
        ({"ulimits": (Ulimit(name="nofile", soft=2, hard=1),)}, "ulimits[0].soft", "above the hard limit, 1"),
        ({"ulimits": (Ulimit(name="nofile", soft=-1, hard=1),)}, "ulimits[0].soft", "unlimited is above"),
        ({"ulimits": (Ulimit(name="nofile", soft=0, hard=-2),)}, "ulimits[0].hard", "-1 for unlimited"),
        ({"ulimits": (Ulimit(name="cpu", soft=1, hard=1),) * 2}, "ulimits[1].name", "given twice"),
        ({"devices": (DeviceMapping(path_on_host="dev"),)}, "devices[0].path_on_host", "absolute path"),
        ({"devices": (DeviceMapping(path_on_host="/"),)}, "devices[0].path_on_host", "is no device"),
        (
            {"devices": (DeviceMapping(path_on_host="/a", path_in_container="b"),)},
            "devices[0].path_in_container",
            "absolute path",
        ),
        (
            {"devices": (DeviceMapping(path_on_host="/a", cgroup_permissions="rr"),)},
            "devices[0].cgroup_permissions",
            "each at most once",
        ),
        (
            {"devices": (DeviceMapping(path_on_host="/a"), DeviceMapping(path_on_host="/a/"))},
            "devices[1].path_in_container",
            "another device",
        ),
        ({"device_cgroup_rules": ("c 1:3",)}, "device_cgroup_rules[0]", "is not a device rule"),
        ({"device_cgroup_rules": ("c 1:3 rr",)}, "device_cgroup_rules[0]", "is not a device rule"),
        ({"device_cgroup_rules": ("c 5000:3 r",)}, "device_cgroup_rules[0]", "device numbers go to"),
        ({"init": True, "pid_mode": "host"}, "init", "process 1"),
    ],
)  # fmt: skip
def test_each_rule_names_its_field(asked: dict[str, Any], field: str, sentence: str) -> None:
    assert list(found := faults(**asked)) == [field]
    assert sentence in found[field]


@pytest.mark.parametrize(
    ("facts", "asked", "field", "sentence"),
    [
        ({"capabilities": frozenset()}, {"cap_add": ("sys_time",)}, "cap_add[0]", "no CAP_SYS_TIME to give"),
        ({"seccomp": False}, {"security_opt": ('seccomp={"a": 1}',)}, "security_opt[0]", "cannot filter"),
        ({"init": False}, {"init": True}, "init", "install tini"),
    ],
)
def test_what_the_node_lacks_is_refused_with_a_way_out(
    facts: dict[str, Any], asked: dict[str, Any], field: str, sentence: str
) -> None:
    assert list(found := faults(facts=replace(FACTS, **facts), **asked)) == [field]
    assert sentence in found[field]


def test_names_of_the_node_cannot_be_set() -> None:
    found = faults(ContainerConfig(hostname="a", domainname="b"), uts_mode="host")
    assert set(found) == {"config.hostname", "config.domainname"}
    assert 'sysctls["kernel.domainname"]' in faults(ContainerConfig(domainname="b"), sysctls={"kernel.domainname": "x"})
    assert 'sysctls["net.x"]' in faults(network_mode="host", sysctls={"net.x": "1"})


def test_a_disabled_network_is_none() -> None:
    assert effective_network("bridge", disabled=True) == effective_network("", disabled=True) == "none"
    [violation] = validate_network_disabled(True, "host", "config.network_disabled")
    assert "cannot be disabled" in violation.description
    assert validate_network_disabled(True, "", "x") == validate_network_disabled(False, "host", "x") == []


def test_defaults_follow_the_node_and_what_else_was_asked() -> None:
    given = normalise_privileges(HostConfig(cap_add=("net_raw", "CAP_NET_RAW")), FACTS, network_mode="bridge")
    assert (given.cap_add, given.ipc_mode, given.cgroupns_mode, given.init) == (
        ("CAP_NET_RAW",),
        "private",
        "host",
        True,
    )
    assert "net.ipv4.ip_unprivileged_port_start" in given.sysctls
    assert normalise_privileges(given, FACTS, network_mode="bridge") == given
    shared = normalise_privileges(HostConfig(pid_mode="host"), replace(FACTS, cgroup_layout="v2"), network_mode="host")
    assert (shared.init, shared.cgroupns_mode, shared.sysctls) == (False, "private", {})
    assert normalise_privileges(HostConfig(), replace(FACTS, init=False), network_mode="none").init is False


def test_warnings() -> None:
    poor = replace(FACTS, capabilities=frozenset(CAPABILITIES) - {"CAP_BPF"}, seccomp=False)
    assert privilege_warnings(HostConfig(cap_add=("NET_RAW",)), FACTS) == []
    assert privilege_warnings(HostConfig(privileged=True, cap_drop=("ALL",)), poor) == [
        "The node cannot give CAP_BPF; the container does without.",
        "host_config.cap_add and cap_drop have no effect on a privileged container.",
    ]
    assert ["cannot filter" in text for text in privilege_warnings(HostConfig(), poor)] == [True]


REMAPPING = replace(FACTS, remapped_ids=65536)


@pytest.mark.parametrize(
    ("host", "network_mode", "field", "sentence"),
    [
        ({"privileged": True}, "bridge", "privileged", "a container cannot be privileged"),
        ({}, "host", "network_mode", "cannot share the node's network"),
        ({"pid_mode": "host"}, "bridge", "pid_mode", "cannot share the node's processes"),
        ({"ipc_mode": "host"}, "bridge", "ipc_mode", "cannot share the node's IPC namespace"),
        ({"security_opt": ("writable-cgroups",)}, "bridge", "security_opt[0]", "cgroups cannot be writable"),
    ],
)
def test_what_cannot_be_with_remapped_users(host: Any, network_mode: str, field: str, sentence: str) -> None:
    def refusals(facts: HostFacts, **more: Any) -> list[Violation]:
        asked = HostConfig(**host, **more)
        return validate_remapped(asked, facts, network_mode=network_mode, field="host_config")

    (violation,) = refusals(REMAPPING)
    assert violation.field == f"host_config.{field}"
    assert sentence in violation.description
    assert "userns_mode 'host'" in violation.description
    assert refusals(REMAPPING, userns_mode="host") == []
    assert refusals(FACTS) == []


def test_the_groups_that_may_ping_are_those_the_container_has() -> None:
    ping = "net.ipv4.ping_group_range"
    for facts, mode, last in ((REMAPPING, "", 65535), (REMAPPING, "host", 2**31 - 1), (FACTS, "", 2**31 - 1)):
        host = normalise_privileges(HostConfig(userns_mode=mode), facts, network_mode="bridge")
        assert host.sysctls[ping] == f"0 {last}"


def test_devices_of_a_vendor_are_asked_for_by_their_full_names() -> None:
    good = ("vendor.com/class=0", "nvidia.com/gpu=all", "v/c=GPU-1:2.3_4")
    assert validate_device_requests([DeviceRequest(driver="cdi", device_ids=good)], "f") == []
    wrong = ("gpu", "vendor.com=0", "vendor.com/class=", "1v/c=x", "v/c=../x", "v/c=x ", "a/b/c=x", good[0], good[0])
    requests = [
        DeviceRequest(driver="nvidia", device_ids=()),
        DeviceRequest(driver="cdi", device_ids=wrong),
    ]
    violations = validate_device_requests(requests, "host_config.device_requests")
    assert [violation.field for violation in violations] == [
        "host_config.device_requests[0].driver",
        "host_config.device_requests[0].device_ids",
        *(f"host_config.device_requests[1].device_ids[{index}]" for index in (*range(7), 8)),
    ]
    assert "there is no driver 'nvidia'; use 'cdi'" in violations[0].description
    assert "'gpu' is not the full name of a device, 'vendor.com/class=name'" in violations[2].description
    assert "is asked for twice" in violations[-1].description
