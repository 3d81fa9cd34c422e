from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from executor_service.mount_staging import StagedMount
from executor_service.mounts import Mount, MountType
from executor_service.oci.mounts import NetworkFiles, container_mounts
from executor_service.oci.user_mounts import rootfs_propagation, with_user_mounts
from executor_service.operations.mount_rules import mount_rules
from tests.fixtures.fake_host.specs import container_spec

BIND = Mount(type=MountType.BIND, source="/srv", target="/data")
VOLUME = Mount(type=MountType.VOLUME, source="db", target="/data")
TMPFS = Mount(type=MountType.TMPFS, source="", target="/data")
IMAGE = Mount(type=MountType.IMAGE, source="sha256:" + "1" * 64, target="/data", read_only=True)


@pytest.mark.parametrize("mount", [BIND, VOLUME, replace(TMPFS, options=("size=1m", "exec", "mode=1777")), IMAGE])
def test_good_mounts(mount: Mount) -> None:
    assert list(mount_rules([mount])) == []


@pytest.mark.parametrize(
    ("mount", "field"),
    [
        (replace(BIND, target="/"), "target"),
        (replace(BIND, target="data"), "target"),
        (replace(BIND, target="/a/../b"), "target"),
        (replace(BIND, target="//a"), "target"),
        (replace(BIND, target="/a/"), "target"),
        (replace(BIND, target="/a\0"), "target"),
        (replace(BIND, target="/proc"), "target"),
        (replace(BIND, target="/proc/sys"), "target"),
        (replace(BIND, source="srv"), "source"),
        (replace(BIND, source="/srv\0"), "source"),
        (replace(VOLUME, source=".."), "source"),
        (replace(VOLUME, source="../x"), "source"),
        (replace(VOLUME, source=""), "source"),
        (replace(TMPFS, source="x"), "source"),
        (replace(IMAGE, source="busybox"), "source"),
        (replace(IMAGE, read_only=False), "read_only"),
        (replace(BIND, propagation="up"), "propagation"),
        (replace(VOLUME, propagation="shared"), "propagation"),
        (replace(BIND, read_only_force_recursive=True), "read_only"),
        (replace(VOLUME, subpath="../x"), "subpath"),
        (replace(VOLUME, subpath="/x"), "subpath"),
        (replace(BIND, subpath="x"), "subpath"),
        (replace(TMPFS, options=("size=1,bind",)), "options[0]"),
        (replace(TMPFS, options=("exec", "remount")), "options[1]"),
        (replace(BIND, populate=True), "populate"),
        (replace(VOLUME, create_source=True), "create_source"),
    ],
)
def test_mounts_refused_whoever_asks(mount: Mount, field: str) -> None:
    assert f"mounts[1].{field}" in dict(mount_rules([replace(TMPFS, target="/other"), mount]))


def test_one_place_twice() -> None:
    assert dict(mount_rules([BIND, VOLUME])) == {"mounts[1].target": "'/data' is the target of another mount, too"}


def staged(*targets: str, propagation: str = "") -> list[StagedMount]:
    return [
        StagedMount(mount=replace(BIND, target=target, propagation=propagation), source=Path(f"/staged/{index}"))
        for index, target in enumerate(targets)
    ]


def test_what_is_asked_for_replaces_what_is_there_anyway_and_parents_come_first() -> None:
    files = NetworkFiles.in_directory(Path("/files"))
    defaults = container_mounts(replace(container_spec(), readonly_rootfs=True), files=files)
    merged = with_user_mounts(defaults, staged("/a/b/c", "/etc", "/etc/hosts", "/dev/shm", "/a"))
    places = [mount["destination"] for mount in merged]
    assert len(places) == len(set(places))
    assert places.index("/etc") < places.index("/etc/hosts")
    assert places.index("/dev") < places.index("/dev/shm")
    assert places.index("/a") < places.index("/a/b/c")
    by_place = {mount["destination"]: mount for mount in merged}
    assert by_place["/etc/hosts"]["source"] == "/staged/2"
    assert "ro" in by_place["/etc/hostname"]["options"]
    assert by_place["/a"]["options"] == ["rbind", "rprivate", "rw"]  # a read-only root does not make it so
    assert [mount["destination"] for mount in with_user_mounts(defaults, [])] == [
        mount["destination"] for mount in defaults
    ]


def test_a_dev_of_the_users_has_none_of_ours_below() -> None:
    files = NetworkFiles.in_directory(Path("/files"))
    merged = with_user_mounts(container_mounts(container_spec(), files=files), staged("/dev"))
    assert [mount["source"] for mount in merged if mount["destination"].startswith("/dev")] == ["/staged/0"]


def test_the_roots_propagation() -> None:
    assert rootfs_propagation(staged("/a")) == ""
    assert rootfs_propagation(staged("/a", propagation="rslave")) == "rslave"
    assert rootfs_propagation([*staged("/a", propagation="slave"), *staged("/b", propagation="rshared")]) == "shared"
