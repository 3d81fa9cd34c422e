"""The merge of a request with its image's configuration."""

from __future__ import annotations

import itertools

import pytest

from api_service.operations.image_config_merge import (
    command_line,
    merge_image_config,
    validate_command,
    validate_image_config,
)
from api_service.records.config import ContainerConfig, ImageConfig

Words = tuple[str, ...]

# (request entrypoint, request cmd, image entrypoint, image cmd) -> (entrypoint, cmd)
_R, _RC, _I, _IC = ("re",), ("rc",), ("ie",), ("ic",)
_MERGES: dict[tuple[Words | None, Words, Words, Words], tuple[Words, Words]] = {
    (None, (), (), ()): ((), ()),
    (None, (), (), _IC): ((), _IC),
    (None, (), _I, ()): (_I, ()),
    (None, (), _I, _IC): (_I, _IC),
    (None, _RC, (), ()): ((), _RC),
    (None, _RC, (), _IC): ((), _RC),
    (None, _RC, _I, ()): (_I, _RC),
    (None, _RC, _I, _IC): (_I, _RC),
    # an empty list is not "not given": the image's entrypoint goes, its command stays
    ((), (), (), ()): ((), ()),
    ((), (), (), _IC): ((), _IC),
    ((), (), _I, ()): ((), ()),
    ((), (), _I, _IC): ((), _IC),
    ((), _RC, (), ()): ((), _RC),
    ((), _RC, (), _IC): ((), _RC),
    ((), _RC, _I, ()): ((), _RC),
    ((), _RC, _I, _IC): ((), _RC),
    # a single empty string clears the image's entrypoint, and drops its command as any entrypoint does
    (("",), (), (), ()): ((), ()),
    (("",), (), (), _IC): ((), ()),
    (("",), (), _I, ()): ((), ()),
    (("",), (), _I, _IC): ((), ()),
    (("",), _RC, (), ()): ((), _RC),
    (("",), _RC, (), _IC): ((), _RC),
    (("",), _RC, _I, ()): ((), _RC),
    (("",), _RC, _I, _IC): ((), _RC),
    (_R, (), (), ()): (_R, ()),
    (_R, (), (), _IC): (_R, ()),
    (_R, (), _I, ()): (_R, ()),
    (_R, (), _I, _IC): (_R, ()),
    (_R, _RC, (), ()): (_R, _RC),
    (_R, _RC, (), _IC): (_R, _RC),
    (_R, _RC, _I, ()): (_R, _RC),
    (_R, _RC, _I, _IC): (_R, _RC),
}


def test_table_is_whole() -> None:
    whole = set(itertools.product([None, (), ("",), _R], [(), _RC], [(), _I], [(), _IC]))
    assert set(_MERGES) == whole


@pytest.mark.parametrize("given", list(_MERGES))
def test_entrypoint_and_cmd(given: tuple[Words | None, Words, Words, Words]) -> None:
    entrypoint, cmd, image_entrypoint, image_cmd = given
    merged = merge_image_config(
        ContainerConfig(image="i", entrypoint=entrypoint, cmd=cmd),
        ImageConfig(entrypoint=image_entrypoint, cmd=image_cmd),
    )
    assert (merged.entrypoint, merged.cmd) == _MERGES[given]
    assert command_line(merged) == sum(_MERGES[given], ())
    violations = validate_command(merged)
    assert [violation.field for violation in violations] == ([] if command_line(merged) else ["config.cmd"])


def test_no_command_says_so() -> None:
    [violation] = validate_command(merge_image_config(ContainerConfig(image="i"), ImageConfig()))
    assert "no command specified" in violation.description


def test_image_clears_its_own_entrypoint() -> None:
    merged = merge_image_config(ContainerConfig(image="i"), ImageConfig(entrypoint=("",), cmd=("sh",)))
    assert command_line(merged) == ("sh",)


_IMAGE = ImageConfig(
    user="app",
    env=("PATH=/bin", "A=image"),
    cmd=("sh",),
    working_dir="/srv/",
    labels={"a": "image", "b": "image"},
    exposed_ports=("80/tcp", "443"),
    stop_signal="SIGINT",
)


def test_image_supplies_what_the_request_leaves_open() -> None:
    merged = merge_image_config(ContainerConfig(image="i"), _IMAGE)
    assert merged == ContainerConfig(
        image="i", user="app", env=("PATH=/bin", "A=image"), entrypoint=(), cmd=("sh",), working_dir="/srv",
        labels={"a": "image", "b": "image"}, exposed_ports=("80/tcp", "443/tcp"), stop_signal="SIGINT",
    )  # fmt: skip


def test_request_wins_and_collections_unite() -> None:
    request = ContainerConfig(
        image="i", hostname="h", user="me", env=("A=mine", "C=3"), working_dir="/w", labels={"a": "mine", "c": ""},
        exposed_ports=("80/tcp", "53/udp"), stop_signal="SIGQUIT", stop_timeout=3, tty=True,
    )  # fmt: skip
    merged = merge_image_config(request, _IMAGE)
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("me", "/w", "SIGQUIT")
    assert merged.env == ("A=mine", "C=3", "PATH=/bin")
    assert merged.labels == {"a": "mine", "b": "image", "c": ""}
    assert merged.exposed_ports == ("53/udp", "80/tcp", "443/tcp")
    assert (merged.hostname, merged.stop_timeout, merged.tty) == ("h", 3, True)


def test_defaults_when_neither_says() -> None:
    merged = merge_image_config(ContainerConfig(image="i"), ImageConfig())
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("", "/", "SIGTERM")


def test_images_are_held_to_the_rules() -> None:
    assert validate_image_config(_IMAGE) == []
    hostile = ImageConfig(
        user="4294967295", env=("A=" + "x" * 2**17,), cmd=("x" * 2**17,), entrypoint=("x" * 2**17,),
        working_dir="/proc/self/fd/8",
        exposed_ports=("x",), stop_signal="x",
    )  # fmt: skip
    violations = validate_image_config(hostile)
    assert {violation.field for violation in violations} == {"config.image"}
    for part in ("config.user", "config.env[0]", "config.cmd[0]", "config.entrypoint[0]", "config.working_dir",
                 "config.exposed_ports[0]", "config.stop_signal"):  # fmt: skip
        assert any(f"the image's own {part}: " in violation.description for violation in violations)
