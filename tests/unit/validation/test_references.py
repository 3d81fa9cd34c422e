"""Image references, after the tables of the reference implementation's own behaviour."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api_service.validation.references import (
    ImageReference,
    InvalidReference,
    full_image_id,
    image_id_prefix,
    normalise_reference,
    parse_reference,
    validate_image,
)

_SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:latest", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("library/team/app", "docker.io/library/team/app:latest", "library/team/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("registry.example/a/b/c:v1", "registry.example/a/b/c:v1", "registry.example/a/b/c:v1"),
        ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
        ("127.0.0.1:5000/app:x", "127.0.0.1:5000/app:x", "127.0.0.1:5000/app:x"),
        ("[fd00::1]:5000/app", "[fd00::1]:5000/app:latest", "[fd00::1]:5000/app:latest"),
        (f"busybox@{_SHA}", f"docker.io/library/busybox@{_SHA}", f"busybox@{_SHA}"),
        (f"busybox:1@{_SHA}", f"docker.io/library/busybox:1@{_SHA}", f"busybox:1@{_SHA}"),
        ("a", "docker.io/library/a:latest", "a:latest"),
        ("a__b--c.d_e:T_1.-", "docker.io/library/a__b--c.d_e:T_1.-", "a__b--c.d_e:T_1.-"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
        ("cafe", "docker.io/library/cafe:latest", "cafe:latest"),
        ("docker.io/0.0/app", "docker.io/0.0/app:latest", "docker.io/0.0/app:latest"),
        ("docker.io/localhost/app", "docker.io/localhost/app:latest", "docker.io/localhost/app:latest"),
    ],
)
def test_normal_forms(text: str, canonical: str, familiar: str) -> None:
    reference = normalise_reference(text)
    assert reference.canonical == canonical
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "@", ":tag", "a:", "a@", "/a", "a/", "a//b", "A", "Busybox", "docker.io/Team/app", "a b", "a\n", "-a",
        "a-", ".a", "a.", "a..b", "a___b", "a._b", "a:-t", "a:.t", "a:t:u", "x:" + "t" * 129, "a:t/u:v w", "ä",
        "a@sha256:short", "a@sha256:" + "g" * 64, "a@sha256:" + "A" * 64, "a@sha256:" + "a" * 63, "a@" + "a" * 64,
        f"a@{_SHA}@{_SHA}", "https://registry.example/a", "reg_istry.example/a", "-x.example/a", "x.example:port/a",
        "x.example/", "[fd00::1/a", "../a", "a/../b", "a" * 256, "0123456789abcdef" * 4, "a\0",
    ],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    assert caught.value.message
    assert caught.value.reason == "INVALID_REFERENCE"


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(InvalidReference, match="lower-case"):
        parse_reference("Busybox")
    with pytest.raises(InvalidReference, match="the tag '-x'"):
        parse_reference("busybox:-x")
    with pytest.raises(InvalidReference, match="image id"):
        parse_reference("ab" * 32)


def test_tag_is_supplied_only_where_nothing_else_is_said() -> None:
    assert parse_reference("busybox").tag == ""
    assert normalise_reference("busybox").tag == "latest"
    assert normalise_reference(f"busybox@{_SHA}").tag == ""


_component = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
_references = st.builds(
    ImageReference,
    domain=st.sampled_from(
        ["docker.io", "localhost", "localhost:5000", "r.example", "R", "10.0.0.1:1", "[::1]:80", "a.b.c"]
    ),
    path=st.lists(_component, min_size=2, max_size=4).map("/".join),
    tag=st.just("") | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}", fullmatch=True),
    digest=st.just("") | st.sampled_from([_SHA, "sha512:" + "0a" * 64, "other+alg:" + "ab" * 16]),
)


@given(_references)
def test_both_forms_read_back_as_the_same(reference: ImageReference) -> None:
    assert parse_reference(reference.canonical) == reference
    assert parse_reference(reference.familiar) == reference


@given(st.text(alphabet="aB0._-:/@[]\n", max_size=30))
@example("a:b/c")
def test_whatever_is_accepted_is_stable(text: str) -> None:
    try:
        reference = normalise_reference(text)
    except InvalidReference:
        return
    assert normalise_reference(reference.canonical) == reference
    assert normalise_reference(reference.familiar) == reference
    assert not set(reference.canonical) & set("\n ")


_HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"), [(_HEX, _SHA), (_SHA, _SHA), (_HEX[:63], None), (_HEX.upper(), None), (_HEX + "0", None)]
)
def test_whole_ids(text: str, full: str | None) -> None:
    assert full_image_id(text) == full


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("cafe", "cafe"), ("0123456789ab", "0123456789ab"), ("sha256:beef", "beef"), (_SHA, _HEX), (_HEX, _HEX),
        ("abc", None), ("caff\n", None), ("busybox", None), ("sha256:", None), ("CAFE", None), (_HEX + "0", None),
    ],
)  # fmt: skip
def test_beginnings_of_ids(text: str, digits: str | None) -> None:
    assert image_id_prefix(text) == digits


@pytest.mark.parametrize(
    "text", ["busybox", f"busybox@{_SHA}", _SHA, _HEX, "cafe", "sha256:cafe", "localhost:5000/a:b"]
)
def test_images_a_request_may_name(text: str) -> None:
    assert validate_image(text, "config.image") == []


@pytest.mark.parametrize("text", ["", "Busybox", "a b", "sha256:" + "a" * 65 + "/"])
def test_images_a_request_may_not_name(text: str) -> None:
    [violation] = validate_image(text, "config.image")
    assert violation.field == "config.image"
    assert violation.description
