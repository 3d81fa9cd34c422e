"""Devices as a runtime is told of them, and where they may not be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InvalidArgument
from executor_service.container import ContainerSpec, Device, DeviceRule, Security
from executor_service.oci.devices import HostDevice, device_nodes, device_rules, find_devices
from executor_service.oci.rootfs import check_device_paths

_SPEC = ContainerSpec(id="ab" * 32, image_id="", args=("sh",))


def _with(*devices: Device, privileged: bool = False, rules: tuple[DeviceRule, ...] = ()) -> ContainerSpec:
    security = Security(privileged=privileged)
    return ContainerSpec(id=_SPEC.id, image_id="", args=("sh",), devices=devices, device_rules=rules, security=security)


def test_a_device_is_told_by_its_numbers_and_allowed_as_asked() -> None:
    spec = _with(
        Device(source="/dev/zero", target="/dev/nil", permissions="r"),
        rules=(DeviceRule(type="b", major=8, minor=-1, permissions="rw"),),
    )
    devices = find_devices(spec)
    [node] = device_nodes(devices)
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/nil", "c", 1, 5)
    assert device_rules(spec, devices)[-2:] == [
        {"allow": True, "type": "c", "access": "r", "major": 1, "minor": 5},
        {"allow": True, "type": "b", "access": "rw", "major": 8},
    ]


def test_a_privileged_container_gets_the_nodes_but_none_it_has_of_its_own() -> None:
    spec = _with(privileged=True)
    paths = {device.path for device in find_devices(spec)}
    assert not paths & {"/dev/null", "/dev/console", "/dev/ptmx"}
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) for path in paths)
    assert device_rules(spec, []) == [{"allow": True, "access": "rwm"}]


def test_what_is_no_device_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong = (str(tmp_path / "gone"), str(tmp_path / "file"), str(tmp_path))
    with pytest.raises(InvalidArgument) as refused:
        find_devices(_with(*(Device(source=path, target="/dev/x") for path in wrong)))
    said = [(violation.field, violation.description) for violation in refused.value.violations]
    assert [field for field, _ in said] == [f"host_config.devices[{index}].path_on_host" for index in range(3)]
    assert ["No such file" in said[0][1], "is no device" in said[1][1], "there is no device in" in said[2][1]] == [
        True
    ] * 3


def test_no_device_is_made_where_a_link_of_the_image_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("/tmp")

    def device(path: str) -> HostDevice:
        return HostDevice(path=path, type="c", major=1, minor=5, mode=0o600, uid=0, gid=0)

    check_device_paths(tmp_path, [device(path) for path in ("/dev/a/b", "/real/x", "/new/dir/x")])
    with pytest.raises(InvalidArgument, match="reached through a link"):
        check_device_paths(tmp_path, [device("/link/x")])
