"""The setting `userns_remap`, the ids it makes, and owners in archives."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InvalidArgument
from executor_service.files.owners import AS_THEY_ARE, Owners
from executor_service.oci.users import ResolvedUser, check_mapped
from executor_service.user_mapping import NOBODY, UserMapping, configured_mapping

_MAPPING = UserMapping(first_uid=100000, first_gid=200000, count=65536)


def _configured(tmp_path: Path, setting: str, subuid: str = "", subgid: str = "") -> UserMapping | None:
    for name, content in (("subuid", subuid), ("subgid", subgid)):
        (tmp_path / name).write_text(content)
    return configured_mapping(setting, subuid=tmp_path / "subuid", subgid=tmp_path / "subgid")


def test_what_it_may_be(tmp_path: Path) -> None:
    assert _configured(tmp_path, "") is None
    assert _configured(tmp_path, "100000:70000") == UserMapping(first_uid=100000, first_gid=100000, count=70000)
    found = _configured(tmp_path, "slip", "x:1:2\nslip:100000:65536\nslip:1:1\n", "slip:200000:99999\n")
    assert found == _MAPPING
    assert (_MAPPING.uid_map, _MAPPING.gid_map) == ("0 100000 65536", "0 200000 65536")


@pytest.mark.parametrize(
    ("setting", "subuid", "sentence"),
    [
        ("100000", "", "a user's name or <first uid>:<count>"),
        ("../x", "", "a user's name or <first uid>:<count>"),
        ("100000:1000", "", "1000 ids are too few"),
        ("0:65536", "", "it begins at 0, among the node's own ids"),
        ("4294960000:65536", "", "it ends at 4295025535"),
        ("slip", "other:100000:65536", "has no line for it; add slip:100000:65536 there"),
        ("slip", "slip:many:65536", "should be slip:<first id>:<count>"),
        ("slip", "slip:100000:65536", "subgid has no line for it"),
    ],
)
def test_what_it_may_not_be_is_one_line(tmp_path: Path, setting: str, subuid: str, sentence: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        _configured(tmp_path, setting, subuid)
    assert sentence in refused.value.message
    assert refused.value.message.startswith("userns_remap ")
    assert "\n" not in refused.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="subuid cannot be read: No such file or directory"):
        configured_mapping("slip", subuid=tmp_path / "subuid", subgid=tmp_path / "subgid")


def test_ids_there_and_back() -> None:
    assert _MAPPING.outside(0, 65535) == (100000, 265535)
    assert _MAPPING.inside(100000, 265535) == (0, 65535)
    assert _MAPPING.inside(0, 265536) == (NOBODY, NOBODY)
    for uid, gid in ((65536, 0), (0, 65536), (-1, 0)):
        with pytest.raises(InvalidArgument, match="is not one of the container's, 0 to 65535"):
            _MAPPING.outside(uid, gid)


def test_a_user_that_the_container_does_not_have() -> None:
    check_mapped(ResolvedUser(uid=65535, gid=0), _MAPPING, "x")
    with pytest.raises(InvalidArgument, match="gives a container the ids 0 to 65535"):
        check_mapped(ResolvedUser(uid=0, gid=0, additional_gids=(65536,)), _MAPPING, "x")


def test_capabilities_of_a_file_are_those_of_the_containers_root() -> None:
    plain = bytes.fromhex("0100000200200000000000000000000000000000")
    of_root = bytes.fromhex("0100000300200000000000000000000000000000a0860100")
    owners = Owners(_MAPPING)
    assert (owners.capability_outside(plain), owners.capability_inside(of_root)) == (of_root, plain)
    of_another = of_root[:-4] + bytes(4)
    assert owners.capability_inside(of_another) == of_another
    assert owners.capability_outside(b"short") == b"short"
    assert (AS_THEY_ARE.capability_outside(plain), AS_THEY_ARE.inside(5, 6)) == (plain, (5, 6))
