"""Where an image is taken from: default registry, mirrors, aliases, and who is shown what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api_service.config import Settings
from api_service.executor_client.images import RegistryCredentials
from api_service.registries.endpoints import Registries
from api_service.validation.references import normalise_reference
from common.errors import InvalidArgument
from common.settings import load_settings


def registries(tmp_path: Path, toml: str) -> Registries:
    file = tmp_path / "api.toml"
    file.write_text(f'docker_config = "{tmp_path}/config.json"\n{toml}')
    return load_settings(Settings, ["--config", str(file)]).registries


async def places(found: Registries, name: str) -> list[str]:
    endpoints = await found.endpoints_of(normalise_reference(name), RegistryCredentials())
    return [f"{'http' if each.plain_http else 'https'}://{each.host}/{each.repository}" for each in endpoints]


@pytest.mark.parametrize(
    ("toml", "name", "expected", "configured"),
    [
        ("", "busybox", ["https://registry-1.docker.io/library/busybox"], False),
        ("", "docker.io/a/b", ["https://registry-1.docker.io/a/b"], False),
        ("", "Reg.example/a", ["https://reg.example/a"], True),
        ("", "[::1]:5000/a", ["http://[::1]:5000/a"], True),
        ('insecure_registries = ["REG:5000"]', "reg:5000/a", ["http://reg:5000/a"], True),
        ('default_registry = "docker.io"', "busybox", ["https://registry-1.docker.io/library/busybox"], True),
        ('default_registry = "reg:5000/hub"', "busybox", ["https://reg:5000/hub/library/busybox"], True),
        ('default_registry = "reg:5000"', "other:1/a", ["https://other:1/a"], True),
        (
            '[registry_mirrors]\n"docker.io" = ["m1", "localhost:2/hub"]\n"reg" = ["m3"]',
            "busybox",
            [
                "https://m1/library/busybox",
                "http://localhost:2/hub/library/busybox",
                "https://registry-1.docker.io/library/busybox",
            ],
            False,
        ),
        (
            'default_registry = "reg"\n[registry_mirrors]\n"docker.io" = ["m1"]\n"reg" = ["m3"]',
            "me/app:2",
            ["https://m3/me/app", "https://reg/me/app"],
            True,
        ),
        ('[image_aliases]\n"app" = "reg.example/team/app"', "app:3", ["https://reg.example/team/app"], True),
        (
            '[image_aliases]\n"app" = "reg.example/team/app"',
            "app2",
            ["https://registry-1.docker.io/library/app2"],
            False,
        ),
        (
            '[image_aliases]\n"app" = "reg.example/team/app"\n[registry_mirrors]\n"reg.example" = ["m"]',
            "docker.io/library/app",
            ["https://m/team/app", "https://reg.example/team/app"],
            True,
        ),
    ],
)
async def test_places(tmp_path: Path, toml: str, name: str, expected: list[str], configured: bool) -> None:
    found = registries(tmp_path, toml)
    assert await places(found, name) == expected
    assert found.is_configured(normalise_reference(name)) is configured


async def test_credentials_of_the_request_are_for_the_registry_alone(tmp_path: Path) -> None:
    found = registries(tmp_path, '[registry_mirrors]\n"reg" = ["mirror"]')
    given = RegistryCredentials(username="u", password="p")
    (tmp_path / "config.json").write_text(json.dumps({"auths": {h: {"auth": "YTpi"} for h in ("reg", "mirror")}}))
    reference = normalise_reference("reg.x/a")
    found = registries(tmp_path, '[registry_mirrors]\n"reg.x" = ["mirror"]')
    mirror, registry = await found.endpoints_of(reference, given)
    assert (mirror.credentials.username, registry.credentials) == ("a", given)
    assert "password" not in repr(registry)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('default_registry = "http://reg"', "host[:port][/path]"),
        ('default_registry = "reg/UPPER"', "host[:port][/path]"),
        ('[registry_mirrors]\n"reg" = ["a b"]', "host[:port][/path]"),
        ('[registry_mirrors]\n"reg" = ["1","2","3","4","5","6","7","8","9"]', "at most 8"),
        ('[image_aliases]\n"app:1" = "reg.example/app"', "tag or a digest"),
        ('[image_aliases]\n"app" = "reg.example/APP"', "lower-case"),
    ],
)
def test_what_is_refused(tmp_path: Path, toml: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        registries(tmp_path, toml)
    assert says in refused.value.message


def test_flags_take_tables(tmp_path: Path) -> None:
    flags = ["--registry-mirrors", '{"docker.io": ["m1"]}', "--image-aliases", '{"app": "reg.example/app"}']
    (tmp_path / "empty.toml").touch()
    found = load_settings(Settings, [*flags, "--config", str(tmp_path / "empty.toml")]).registries
    assert [each.host for each in found.mirrors["docker.io"]] == ["m1"]
    assert len(found.aliases) == 1
