"""Names and roles in certificates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.identity import Identity, Role, identity_in


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]{1,4}){0,3}", fullmatch=True), st.sampled_from(Role))
def test_what_is_written_is_read(name: str, role: Role) -> None:
    identity = Identity(name=name, role=role)
    assert identity_in(["other.example.com", identity.dns_name]) == identity


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["n1.executor.example.com"],
        ["executor.slipway.internal"],
        ["n1.root.slipway.internal"],
        ["n1.Admin.slipway.internal"],
        ["*.admin.slipway.internal"],
        ["n1.admin.slipway.internal.example.com"],
        ["n1.admin.xslipway.internal"],
        ["n1.admin"],
        ["a.reader.slipway.internal", "a.admin.slipway.internal"],
        ["a.admin.slipway.internal", "b.admin.slipway.internal"],
    ],
)
def test_what_names_nobody(names: list[str]) -> None:
    assert identity_in(names) is None


@pytest.mark.parametrize("name", ["", "N1", "a_b", "-a", "a-", "a..b", ".a", "a.", "ä", "a b", "x" * 64, "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        Identity(name=name, role=Role.READER)
