"""Any bytes in Docker's config.json, out of a helper, as a place or an image's config: a value or an error of ours."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from api_service.conversion.image import history_to_proto, image_config_from_proto, image_rules, image_to_proto
from api_service.executor_client.images import StoredImage
from api_service.operations.image_history import history_of
from api_service.operations.image_record import encode_image_config, image_record
from api_service.records.codec import Codec
from api_service.records.image import ImageRecord
from api_service.registries.credential_helper import _parsed
from api_service.registries.docker_config import DockerConfig, fit
from api_service.registries.locations import parse_location
from api_service.store.store import Entry
from common.errors import SlipwayError
from common.request_rules import RequestRules
from tests.fixtures.damage import damaged, patient, told, values

LOGIN = {"auth": "dTpw", "username": "u", "password": "p", "identitytoken": "i", "registrytoken": "r"}
DOCKER = {"auths": {"reg.test": LOGIN, "https://index.docker.io/v1/": LOGIN}, "credHelpers": {"other.test": "x"}}
STEP = {"created": "2023-11-14T22:13:20Z", "created_by": "x", "comment": "y", "empty_layer": False}
CHECK = {"Test": ["CMD", "x"], "Interval": 1, "Timeout": 1, "StartPeriod": 1, "StartInterval": 1, "Retries": 3}
CONFIG = {
    "Env": ["A=b"], "Cmd": ["sh"], "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}},
    "User": "1", "WorkingDir": "/x", "StopSignal": "TERM", "Healthcheck": CHECK,
}  # fmt: skip
IMAGE = {"created": STEP["created"], "architecture": "amd64", "os": "linux", "config": CONFIG, "history": [STEP, STEP]}


@patient
@given(damaged(DOCKER) | st.binary() | values.map(lambda value: json.dumps(value).encode()))
async def test_any_docker_config(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        for host in ("reg.test", "registry-1.docker.io"):
            try:
                found = await DockerConfig(path=Path(file.name)).credentials_for(host)
            except SlipwayError as error:
                assert told(error) in {"DOCKER_CONFIG_UNREADABLE", "CREDENTIAL_HELPER_FAILED"}
            else:
                assert fit(found)


@patient
@given(st.text(st.characters(), max_size=20))
async def test_any_login(text: str) -> None:
    for field in LOGIN:
        content = json.dumps({"auths": {"reg.test": {field: text}}})
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_text(content)
            try:
                assert fit(await DockerConfig(path=Path(file.name)).credentials_for("reg.test"))
            except SlipwayError as error:
                assert told(error) == "DOCKER_CONFIG_UNREADABLE"


@patient
@given(damaged({"Username": "u", "Secret": "s", "ServerURL": "x"}) | st.binary())
def test_any_answer_of_a_helper(answer: bytes) -> None:
    try:
        assert fit(_parsed("x", answer))
    except SlipwayError as error:
        assert told(error) == "CREDENTIAL_HELPER_FAILED"


@patient
@given(st.text(st.characters(), max_size=40))
def test_any_place(text: str) -> None:
    with suppress(ValueError):
        assert parse_location(text).host


@patient
@given(damaged(IMAGE) | st.binary(), st.lists(st.text(max_size=30), max_size=3))
def test_any_config_of_an_image(config: bytes, names: list[str]) -> None:
    stored = StoredImage(
        id=f"sha256:{hashlib.sha256(config).hexdigest()}",
        config=config,
        layers=(),
        size=1,
        names=tuple(names),
        layer_sizes=(1, 2),
    )
    try:
        for entry in history_of(stored, ()):
            history_to_proto(entry).SerializeToString()
    except SlipwayError as error:
        assert told(error) == "HISTORY_UNREADABLE"
    try:
        record = image_record(stored, node="local")
    except SlipwayError as error:
        assert told(error) == "CORRUPT_IMAGE"
        return
    shown = image_to_proto(record)
    assert shown.SerializeToString()
    codec = Codec(ImageRecord)
    stored_record = Entry(key="k", value=codec.encode(record), revision=1)
    assert codec.decode(stored_record).record == record
    image_rules(RequestRules())(record.config)
    assert encode_image_config(image_config_from_proto(shown.config))
