"""Credentials out of config.json and out of helpers, which may be hostile."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from api_service.executor_client.images import RegistryCredentials
from api_service.registries import credential_helper
from api_service.registries.docker_config import DockerConfig
from common.errors import FailedPrecondition

Write = Callable[[object], DockerConfig]
Helper = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(config: object) -> DockerConfig:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return DockerConfig(path=tmp_path / "config.json")

    return written


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def made(name: str, script: str) -> None:
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return made


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("key", "entry", "host", "expected"),
    [
        ("reg:5000", {"auth": auth("u:p:q")}, "reg:5000", RegistryCredentials(username="u", password="p:q")),
        ("https://reg/v2/", {"auth": auth("u:p")}, "reg", RegistryCredentials(username="u", password="p")),
        ("https://index.docker.io/v1/", {"auth": auth("u:p")}, "registry-1.docker.io",
         RegistryCredentials(username="u", password="p")),
        ("docker.io", {"username": "u", "password": "p"}, "registry-1.docker.io",
         RegistryCredentials(username="u", password="p")),
        ("reg", {"identitytoken": "t"}, "reg", RegistryCredentials(identity_token="t")),
        ("reg", {"registrytoken": "t"}, "reg", RegistryCredentials(registry_token="t")),
        ("reg", {"auth": auth("u:p")}, "reg.example", RegistryCredentials()),
        ("reg", {"auth": auth("u:p")}, "reg:5000", RegistryCredentials()),
        ("reg", {}, "reg", RegistryCredentials()),
    ],
)  # fmt: skip
async def test_auths(write: Write, key: str, entry: dict[str, str], host: str, expected: RegistryCredentials) -> None:
    found = await write({"auths": {key: entry}}).credentials_for(host)
    assert found == expected
    assert "'p" not in repr(found)


async def test_it_is_read_anew_and_may_be_absent(write: Write, tmp_path: Path) -> None:
    config = DockerConfig(path=tmp_path / "config.json")
    assert await config.credentials_for("reg") == RegistryCredentials()
    for name in ("one", "two"):
        write({"auths": {"reg": {"auth": auth(f"{name}:p")}}})
        assert (await config.credentials_for("reg")).username == name
    assert await DockerConfig().credentials_for("reg") == RegistryCredentials()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"auths": {"reg": {"auth": "secret"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        (" " * ((1 << 20) + 1), "more than 1048576 bytes"),
        ({"auths": {"reg": {"auth": "secret!"}}}, "not base64"),
        ({"auths": {"reg": {"auth": auth("secret")}}}, "name:password"),
        ({"auths": {"reg": {"auth": auth("a\r\nsecret:b")}}}, "control characters"),
    ],
)
async def test_broken_file_is_told_without_its_contents(write: Write, content: object, says: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await write(content).credentials_for("reg")
    assert refused.value.reason == "DOCKER_CONFIG_UNREADABLE"
    assert says in refused.value.message
    assert "config.json" in refused.value.message
    assert "secret" not in refused.value.message


async def test_no_file_but_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in ((tmp_path / "pipe", "not a file"), (tmp_path, "directory")):
        with pytest.raises(FailedPrecondition, match=says):
            await DockerConfig(path=path).credentials_for("reg")


async def test_helper_of_a_registry_before_the_one_for_all(write: Write, helper: Helper) -> None:
    helper("one", """read server; echo "{\\"Username\\": \\"one\\", \\"Secret\\": \\"$server\\"}" """)
    helper("all", """test "$1" = get && echo '{"ServerURL": "", "Username": "<token>", "Secret": "t"}'""")
    config = write(
        {
            "credsStore": "all",
            "credHelpers": {"reg:5000": "one", "https://index.docker.io/v1/": "one"},
            "auths": {"reg": {"auth": auth("file:p")}},
        }
    )
    assert await config.credentials_for("reg:5000") == RegistryCredentials(username="one", password="reg:5000")
    assert (await config.credentials_for("registry-1.docker.io")).password == "https://index.docker.io/v1/"
    assert await config.credentials_for("reg") == RegistryCredentials(identity_token="t")


async def test_helper_that_knows_none(write: Write, helper: Helper) -> None:
    helper("none", "echo credentials not found in native keychain; exit 1")
    assert await write({"credsStore": "none"}).credentials_for("reg") == RegistryCredentials()


@pytest.mark.parametrize(
    ("name", "script", "says"),
    [
        ("absent", None, "No such file"),
        ("../x", None, "no name of a helper"),
        ("x; id", None, "no name of a helper"),
        ("fails", "echo secret; echo secret >&2; exit 3", "status 3"),
        ("flood", "exec yes secret", "more than 262144 bytes"),
        ("text", "echo secret", "not a JSON object"),
        ("deep", "head -c 200000 /dev/zero | tr '\\0' '['", "not a JSON object"),
        ("list", "echo '[\"secret\"]'", "not a JSON object"),
        ("kinds", """echo '{"Username": 1, "Secret": "secret"}'""", "texts without control"),
        ("lines", """printf '{"Username": "u", "Secret": "a\\\\nsecret"}'""", "texts without control"),
        ("hangs", "sleep 100 & wait", "not answered within"),
        ("closes", "exec >&-; sleep 100", "not answered within"),
    ],
)
async def test_helper_that_fails(
    write: Write, helper: Helper, monkeypatch: pytest.MonkeyPatch, name: str, script: str | None, says: str
) -> None:
    monkeypatch.setattr(credential_helper, "_TIMEOUT", 0.5 if name in ("hangs", "closes") else 10.0)
    if script is not None:
        helper(name, script)
    with pytest.raises(FailedPrecondition) as refused:
        await write({"credHelpers": {"reg": name}}).credentials_for("reg")
    assert refused.value.reason == "CREDENTIAL_HELPER_FAILED"
    assert says in refused.value.message
    assert "secret" not in str(refused.value.message)
