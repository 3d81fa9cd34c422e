from __future__ import annotations

import pytest

from api_service.records.config import ContainerConfig, HostConfig, NetworkingConfig
from api_service.records.mount import (
    BindOptions,
    ImageOptions,
    Mount,
    TmpfsOptions,
    VolumeDriver,
    VolumeOptions,
)
from api_service.validation.binds import Bind, parse_bind
from api_service.validation.container_create import validate_create
from api_service.validation.host_facts import HostFacts
from api_service.validation.tmpfs import tmpfs_options
from api_service.validation.volumes import normalise_volume_paths, validate_driver

FACTS = HostFacts(runtimes=("crun",), recursive_read_only=False)


def broken(
    host: HostConfig | None = None, *, volumes: tuple[str, ...] = (), facts: HostFacts = FACTS
) -> dict[str, str]:
    config = ContainerConfig(image="busybox", volumes=volumes)
    found = validate_create(config, host or HostConfig(), NetworkingConfig(), facts)
    return {violation.field: violation.description for violation in found}


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("/data", Bind(source="", destination="/data")),
        ("/srv/./a//b/:/data/", Bind(source="/srv/a/b", destination="/data", propagation="rprivate")),
        ("db:/data", Bind(source="db", destination="/data")),
        (
            "db:/data:ro,nocopy,z",
            Bind(source="db", destination="/data", mode="ro,nocopy,z", read_only=True, no_copy=True),
        ),
        ("/a:/b:rslave,cached", Bind(source="/a", destination="/b", mode="rslave,cached", propagation="rslave")),
        ("/a:/proc/meminfo", Bind(source="/a", destination="/proc/meminfo", propagation="rprivate")),
    ],
)
def test_bind_strings(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind
    assert broken(HostConfig(binds=(text,))) == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not [source:]destination[:mode]"),
        (":/data", "is not [source:]destination[:mode]"),
        ("/a:/b:ro:x", "is not [source:]destination[:mode]"),
        ("/data:ro", "a mode where the destination belongs"),
        ("data", "not an absolute path inside the container"),
        ("/a:b", "not an absolute path inside the container"),
        ("/a:/", "the container's root"),
        ("/a:/./", "the container's root"),
        ("/a:/b/../c", "holds '..'"),
        ("/a/../b:/c", "holds '..'"),
        ("/a:/proc", "in /proc"),
        ("/a:/proc/sys/kernel", "in /proc"),
        ("/a:/b\0", "NUL"),
        ("/" + "a" * 4096 + ":/b", "longer than 4095 bytes"),
        ("./a:/b", "no name of a volume"),
        ("a:/b", "no name of a volume"),
        ("-a:/b", "no name of a volume"),
        ("a" * 254 + ":/b", "no name of a volume"),
        ("/a:/b:rx", "is no mode"),
        ("/a:/b:ro,rw", "two words for the access, 'ro' and 'rw'"),
        ("/a:/b:z,Z", "two words for the label"),
        ("/a:/b:shared,slave", "two words for the propagation"),
        ("/a:/b:nocopy", "'nocopy' is for volumes"),
        ("vol:/b:rshared", "is for paths of the node"),
    ],
)
def test_bind_strings_refused(text: str, sentence: str) -> None:
    assert sentence in broken(HostConfig(binds=("/ok:/ok", text)))["host_config.binds[1]"]


BIND = Mount(type="bind", source="/srv", target="/data")
FORCE = BindOptions(read_only_force_recursive=True)


@pytest.mark.parametrize(
    ("mount", "field", "sentence"),
    [
        (Mount(type="", target="/d"), "type", "there are bind, volume, tmpfs, image"),
        (Mount(type="npipe", target="/d"), "type", "no type of a mount"),
        (Mount(type="tmpfs"), "target", "is empty"),
        (Mount(type="tmpfs", target="/"), "target", "the container's root"),
        (Mount(type="tmpfs", target="/proc/self"), "target", "in /proc"),
        (Mount(type="bind", target="/d"), "source", "is empty"),
        (Mount(type="bind", source="srv", target="/d"), "source", "not an absolute path of the node"),
        (Mount(type="volume", source="/srv", target="/d"), "source", "no name of a volume"),
        (Mount(type="tmpfs", source="x", target="/d"), "source", "must be empty"),
        (Mount(type="image", source="", target="/d"), "source", "image"),
        (Mount(type="image", source="UPPER", target="/d"), "source", ""),
        (
            Mount(type="bind", source="/s", target="/d", volume_options=VolumeOptions()),
            "volume_options",
            "is for mounts",
        ),
        (Mount(type="bind", source="/s", target="/d", tmpfs_options=TmpfsOptions()), "tmpfs_options", "is for mounts"),
        (Mount(type="volume", target="/d", bind_options=BindOptions()), "bind_options", "type 'bind', and this"),
        (Mount(type="tmpfs", target="/d", image_options=ImageOptions()), "image_options", "is for mounts"),
        (
            Mount(type="bind", source="/s", target="/d", bind_options=BindOptions(propagation="both")),
            "bind_options.propagation",
            "there are private, rprivate, shared, rshared, slave, rslave",
        ),
        (
            Mount(type="bind", source="/s", target="/d", bind_options=BindOptions(read_only_non_recursive=True)),
            "bind_options.read_only_non_recursive",
            "needs read_only",
        ),
        (
            Mount(type="bind", source="/s", target="/d", read_only=True, bind_options=FORCE),
            "bind_options.read_only_force_recursive",
            "Linux 5.12",
        ),
        (
            Mount(type="volume", source="vol", target="/d", volume_options=VolumeOptions(subpath="a/../../b")),
            "volume_options.subpath",
            "holds '..'",
        ),
        (
            Mount(type="volume", source="vol", target="/d", volume_options=VolumeOptions(subpath="/a")),
            "volume_options.subpath",
            "is absolute",
        ),
        (
            Mount(type="volume", target="/d", volume_options=VolumeOptions(subpath="a")),
            "volume_options.subpath",
            "name a volume",
        ),
        (
            Mount(type="image", source="busybox", target="/d", image_options=ImageOptions(subpath="../x")),
            "image_options.subpath",
            "holds '..'",
        ),
        (
            Mount(type="tmpfs", target="/d", tmpfs_options=TmpfsOptions(size_bytes=-1)),
            "tmpfs_options.size_bytes",
            "is negative",
        ),
        (
            Mount(type="tmpfs", target="/d", tmpfs_options=TmpfsOptions(mode=0o10000)),
            "tmpfs_options.mode",
            "more than 7777",
        ),
        (
            Mount(type="tmpfs", target="/d", tmpfs_options=TmpfsOptions(options=("exec", "size=big"))),
            "tmpfs_options.options[1]",
            "size takes bytes",
        ),
        (
            Mount(type="tmpfs", target="/d", tmpfs_options=TmpfsOptions(options=("a",) * 100_000)),
            "tmpfs_options.options",
            "the options have 200000 characters",
        ),
        (
            Mount(
                type="volume",
                target="/d",
                volume_options=VolumeOptions(driver_config=VolumeDriver(name="nfs")),
            ),
            "volume_options.driver_config.name",
            "only 'local'",
        ),
    ],
)
def test_mounts_refused(mount: Mount, field: str, sentence: str) -> None:
    found = broken(HostConfig(mounts=(BIND, mount)))
    assert sentence in found[f"host_config.mounts[1].{field}"]
    assert len(found) == 1


def test_force_contradicts_what_would_stay_writable() -> None:
    able = HostFacts(runtimes=("crun",))
    good = Mount(type="bind", source="/s", target="/d", read_only=True, bind_options=FORCE)
    assert broken(HostConfig(mounts=(good,)), facts=able) == {}
    for options, sentence in (
        (BindOptions(read_only_force_recursive=True, read_only_non_recursive=True), "contradicts"),
        (BindOptions(read_only_force_recursive=True, propagation="rslave"), "needs the propagation 'rprivate'"),
    ):
        mount = Mount(type="bind", source="/s", target="/d", read_only=True, bind_options=options)
        found = broken(HostConfig(mounts=(mount,)), facts=able)
        assert sentence in found["host_config.mounts[0].bind_options.read_only_force_recursive"]


def test_two_mounts_at_one_place() -> None:
    found = broken(
        HostConfig(
            binds=("/a:/data", "vol:/data/"),
            mounts=(Mount(type="tmpfs", target="/data/./"), Mount(type="tmpfs", target="/run")),
            tmpfs={"/run/": ""},
        )
    )
    assert set(found) == {"host_config.binds[1]", "host_config.mounts[0].target", 'host_config.tmpfs["/run/"]'}
    assert found["host_config.binds[1]"].startswith("duplicate mount point: '/data' is that of host_config.binds[0]")


def test_too_many_mounts() -> None:
    found = broken(HostConfig(binds=tuple(f"/m{number}" for number in range(1001))))
    assert "a container can have 1000" in found["host_config.mounts"]


@pytest.mark.parametrize(
    ("path", "options", "sentence"),
    [
        ("run", "", "not an absolute path"),
        ("/", "", "the container's root"),
        ("/run", "size=1x", "size takes bytes"),
        ("/run", "mode=9", "mode takes octal digits"),
        ("/run", "bind", "no option of a tmpfs"),
        ("/run", "context=x", "no option of a tmpfs"),
        ("/run", "a," * 1_000_000, "the options have 2000000 characters; the kernel takes 4095"),
    ],
)
def test_tmpfs_refused(path: str, options: str, sentence: str) -> None:
    assert sentence in broken(HostConfig(tmpfs={path: options}))[f'host_config.tmpfs["{path}"]']


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([], ("noexec", "nosuid", "nodev", "mode=1777")),
        (["exec", "size=1m", "mode=700"], ("nosuid", "nodev", "exec", "size=1m", "mode=700")),
        (["exec", "noexec", "ro", "size=1", "size=2"], ("nosuid", "nodev", "mode=1777", "noexec", "ro", "size=2")),
    ],
)
def test_options_of_a_tmpfs_are_dockers_and_the_later_wins(given: list[str], options: tuple[str, ...]) -> None:
    assert tmpfs_options(given) == options


@pytest.mark.parametrize(
    ("entry", "sentence"), [("", "names no container"), (":ro", "names no container"), ("a:rx", "is no mode here")]
)
def test_volumes_from_refused(entry: str, sentence: str) -> None:
    assert sentence in broken(HostConfig(volumes_from=("a", "b:ro", entry)))["host_config.volumes_from[2]"]


@pytest.mark.parametrize("path", ["data", "/", "/../..", "/a/../../b", "", "/proc/1", "/a\0"])
def test_paths_of_anonymous_volumes_refused(path: str) -> None:
    assert list(broken(volumes=("/ok", path))) == ["config.volumes[1]"]


def test_paths_of_anonymous_volumes_are_cleaned() -> None:
    assert normalise_volume_paths(["/b/", "//a", "/b"]) == ("/a", "/b")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": "1"}, 'd.options["size"]'),
        ({"type": "tmpfs"}, "d.options"),
        ({"device": "tmpfs"}, "d.options"),
        ({"type": "../x", "device": "x"}, 'd.options["type"]'),
        ({"type": "nfs", "device": "x\0"}, 'd.options["device"]'),
    ],
)
def test_driver_options_refused(options: dict[str, str], field: str) -> None:
    assert field in [violation.field for violation in validate_driver(VolumeDriver(options=options), "d")]


def test_driver_options() -> None:
    nfs = {"type": "nfs", "o": "addr=192.0.2.1,rw", "device": ":/export"}
    assert validate_driver(VolumeDriver(name="local", options=nfs), "d") == []
    assert validate_driver(VolumeDriver(), "d") == []
