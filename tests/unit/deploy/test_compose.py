"""The compose file: what runs without a profile, and that its services take the settings that it gives them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from api_service.config import Settings as ApiSettings
from common.settings import load_settings
from executor_service.config import Settings as ExecutorSettings

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[3] / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SLIPWAY_")]:
        monkeypatch.delenv(name)
    for kind in (ApiSettings, ExecutorSettings):
        monkeypatch.setattr(kind, "default_file", tmp_path / "absent.toml")


def test_one_machine_without_a_profile_and_a_cluster_with_one() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"executor", "api"}
    cluster = {name for name, service in SERVICES.items() if service.get("profiles") == ["cluster"]}
    assert cluster == {"etcd1", "etcd2", "etcd3", "api1", "api2"}


@pytest.mark.parametrize("name", ["executor", "api", "api1", "api2"])
def test_services_take_their_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = ExecutorSettings if name == "executor" else ApiSettings
    prefix = str(kind.model_config["env_prefix"])
    given: dict[str, str] = SERVICES[name]["environment"]
    assert {key.removeprefix(prefix).lower() for key in given} <= set(kind.model_fields)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    load_settings(kind, [])


def test_the_store_of_the_replicas_is_the_three_members() -> None:
    for name in ("api1", "api2"):
        assert SERVICES[name]["environment"]["SLIPWAY_API_STORE"] == "etcds://etcd1:2379,etcd2:2379,etcd3:2379"
        assert set(SERVICES[name]["depends_on"]) == {"etcd1", "etcd2", "etcd3"}


def test_nothing_of_the_cluster_may_do_more_than_it_must() -> None:
    for name in ("etcd1", "etcd2", "etcd3", "api1", "api2"):
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "privileged" not in service
