"""CDI specifications: what they say becomes part of a container, and what is not understood is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import InvalidArgument
from executor_service.cdi.edits import with_cdi_devices
from executor_service.cdi.files import find_cdi_devices, read_specification
from executor_service.container import ContainerSpec, Device, DeviceNode, Hook
from executor_service.mounts import Mount, MountType

ASKED = ContainerSpec(
    id="ab" * 32, image_id="", args=("sh",), env=("A=1", "GADGET=none"), cdi_devices=("example.com/gadget=one",)
)


def specification(**changes: Any) -> dict[str, Any]:
    edits = {"env": ["GADGET=one"], "deviceNodes": [{"path": "/dev/gadget", "hostPath": "/dev/null"}]}
    return {
        "cdiVersion": "0.6.0",
        "kind": "example.com/gadget",
        "devices": [{"name": "one", "containerEdits": edits}],
        **changes,
    }


def with_edits(**edits: Any) -> dict[str, Any]:
    return specification(devices=[{"name": "one", "containerEdits": edits}])


def write(directory: Path, content: object, name: str = "gadget.json") -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text(json.dumps(content) if name.endswith("json") else yaml.safe_dump(content))
    file.chmod(0o644)
    return file


def refusal(directory: Path) -> str:
    with pytest.raises(InvalidArgument) as refused:
        with_cdi_devices(ASKED, [directory])
    [violation] = refused.value.violations
    assert violation.field == "host_config.device_requests"
    return violation.description


@pytest.mark.parametrize("name", ["gadget.json", "gadget.yaml"])
def test_what_a_specification_says_becomes_the_containers(tmp_path: Path, name: str) -> None:
    said = specification(
        containerEdits={
            "env": ["VENDOR=v"],
            "additionalGIDs": [0, 44],
            "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true", "x"], "timeout": 5}],
            "mounts": [
                {"hostPath": "/opt/lib", "containerPath": "/lib/v", "options": ["ro", "nosuid", "rbind", "rslave"]}
            ],
        }
    )
    write(tmp_path, said, name)
    edited = with_cdi_devices(ASKED, [tmp_path])
    assert edited.env == ("A=1", "VENDOR=v", "GADGET=one")
    assert edited.devices == (Device(source="/dev/null", target="/dev/gadget", node=DeviceNode()),)
    assert edited.group_add == ("44",)
    assert edited.hooks == (Hook(name="createContainer", path="/bin/true", args=("true", "x"), timeout=5),)
    [mount] = edited.mounts
    assert mount == Mount(
        type=MountType.BIND,
        source="/opt/lib",
        target="/lib/v",
        read_only=True,
        propagation="rslave",
        options=("nosuid",),
    )


def test_what_all_devices_of_a_specification_need_comes_once(tmp_path: Path) -> None:
    devices = [{"name": name, "containerEdits": {"env": [f"{name.upper()}=1"]}} for name in ("one", "two")]
    write(tmp_path, specification(devices=devices, containerEdits={"additionalGIDs": [44]}))
    both = ("example.com/gadget=one", "example.com/gadget=two")
    edited = with_cdi_devices(ContainerSpec(id=ASKED.id, image_id="", args=("sh",), cdi_devices=both), [tmp_path])
    assert (edited.env, edited.group_add) == (("ONE=1", "TWO=1"), ("44",))


def test_numbers_that_are_given_are_not_looked_up(tmp_path: Path) -> None:
    node = {"path": "/dev/g", "type": "c", "major": 195, "minor": 3, "fileMode": 0o666, "uid": 7, "permissions": "rw"}
    write(tmp_path, with_edits(deviceNodes=[node]))
    [device] = with_cdi_devices(ASKED, [tmp_path]).devices
    assert device.node == DeviceNode(type="c", major=195, minor=3, mode=0o666, uid=7)
    assert (device.target, device.permissions) == ("/dev/g", "rw")


def test_a_later_directory_overrules_and_one_directory_contradicts_itself(tmp_path: Path) -> None:
    write(tmp_path / "etc", with_edits(env=["WHERE=etc"]))
    write(tmp_path / "run", with_edits(env=["WHERE=run"]))
    assert "WHERE=run" in with_cdi_devices(ASKED, [tmp_path / "etc", tmp_path / "run"]).env
    write(tmp_path / "run", with_edits(env=["WHERE=run"]), "other.json")
    found = find_cdi_devices([tmp_path / "etc", tmp_path / "run"])
    assert found.devices == {}
    assert "both" in found.broken["example.com/gadget=one"]


def test_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone") == (
        f"the node has no CDI device 'example.com/gadget=one'; there is none in {tmp_path / 'gone'}"
    )
    write(tmp_path, specification(kind="other.com/thing"))
    (tmp_path / "torn.json").write_text("{")
    said = refusal(tmp_path)
    assert "there are other.com/thing=one;" in said
    assert f"{tmp_path}/torn.json cannot be used: Expecting property name" in said


def _hook(**changes: Any) -> dict[str, Any]:
    return with_edits(hooks=[{"hookName": "prestart", "path": "/bin/true", **changes}])


def _mount(**changes: Any) -> dict[str, Any]:
    return with_edits(mounts=[{"hostPath": "/a", "containerPath": "/b", **changes}])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (specification(cdiVersion="9.0.0"), "cdiVersion: Input should be"),
        (specification(kind="no-class"), "kind: String should match"),
        (specification(kind="../../x/y"), "kind: String should match"),
        (specification(devices=[]), "devices: Tuple should have at least 1"),
        (specification(devices=[{"name": "a b", "containerEdits": {}}]), "devices.0.name: String should match"),
        (specification(surprise=1), "surprise: Extra inputs are not permitted"),
        (specification(containerEdits={"intelRdt": {}}), "containerEdits.intelRdt: Extra inputs"),
        (with_edits(env="A=1"), "env: Input should be a valid tuple"),
        (with_edits(deviceNodes=[{"path": "dev/x"}]), "path: String should match"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "type": "p"}]), "type: Input should be"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "major": -1}]), "major: Input should be greater"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "minor": "1"}]), "minor: Input should be a valid integer"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "fileMode": 0o4777}]), "fileMode: Input should be less"),
        (with_edits(additionalGIDs=[2**31]), "additionalGIDs.0: Input should be less"),
        (_hook(hookName="poststop"), "hookName: Input should be"),
        (_hook(path="true"), "path: String should match"),
        (_hook(args=["a\0b"]), "args.0: String should match"),
        (_hook(timeout=0), "timeout: Input should be greater"),
        (_mount(type="proc"), "type: Input should be"),
        (_mount(containerPath="b"), "containerPath: String should match"),
        ([], "the whole: Input should be"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, content: object, why: str) -> None:
    write(tmp_path, content)
    assert f"{tmp_path}/gadget.json cannot be used: " in refusal(tmp_path)
    assert why in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "why"), [(["suid", "mode=777"], "the option 'mode=777'"), (["shared", "slave"], "two kinds")]
)
def test_a_mount_is_not_made_otherwise_than_it_says(tmp_path: Path, options: list[str], why: str) -> None:
    write(tmp_path, _mount(options=options))
    assert why in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "aliases can make a small file a huge one"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        ("!!python/object/apply:os.system ['true']\n", "cannot be read as YAML"),
        ("a: [", "cannot be read as YAML"),
        ("# " + "x" * 1024 * 1024, "has more than 1048576 bytes"),
    ],
)
def test_hostile_yaml_is_not_read(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "gadget.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=why):
        read_specification(file)


def test_a_file_that_others_may_write_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, specification()).chmod(0o666)
    assert "others than root may write it" in refusal(tmp_path)


def test_json_that_is_nested_too_deeply_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "gadget.json").write_text("[" * 100_000)
    assert "nested too deeply" in refusal(tmp_path)
