"""The log driver's options."""

from __future__ import annotations

import pytest

from api_service.records.config import LogConfig
from api_service.validation.log_options import (
    LogBounds,
    log_bounds,
    normalise_log_config,
    validate_log_config,
)
from api_service.validation.sizes import BINARY, DECIMAL, parse_size
from api_service.validation.storage_opt import root_size, validate_storage_opt


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1), ("10m", 10_000_000), ("10M", 10_000_000), ("10mb", 10_000_000), ("10MiB", 10_000_000), ("42b", 42),
        ("100k", 100_000), ("1 g", 10**9), ("1.5k", 1500), ("2t", 2 * 10**12), ("0", None), ("0.0001", None),
        ("-1", None), ("", None), ("m", None), ("10x", None), ("10 m b", None), ("1e3", None), ("10m\n", None),
        (" 10m", None), ("9" * 19 + "p", None), ("9" * 5000, None), ("nan", None), ("١", None),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int | None) -> None:
    assert parse_size(text, DECIMAL) == size


def test_sizes_in_powers_of_two() -> None:
    assert [parse_size(text, BINARY) for text in ("1", "1k", "1.5m", "2G")] == [1, 1024, 1536 * 1024, 2 * 1024**3]


def test_the_size_of_a_root() -> None:
    assert (validate_storage_opt({"size": "10g"}, "f"), root_size({"size": "10g"}), root_size({})) == (
        [],
        10 * 1024**3,
        0,
    )
    violations = validate_storage_opt({"size": "big", "inodes": "1"}, "host_config.storage_opt")
    assert [violation.field for violation in violations] == [
        'host_config.storage_opt["size"]',
        'host_config.storage_opt["inodes"]',
    ]
    assert "'big' is not a size: give a positive number" in violations[0].description
    assert "there is no such option; there is 'size'" in violations[1].description


@pytest.mark.parametrize(
    "config",
    [
        LogConfig(),
        LogConfig(type="json-file"),
        LogConfig(config={"max-size": "1k", "max-file": "1"}),
        LogConfig(config={"max-file": "1000"}),
    ],
)
def test_configurations_that_are_fine(config: LogConfig) -> None:
    assert validate_log_config(config, "f") == []


def test_everything_wrong_is_reported() -> None:
    config = LogConfig(config={"max-size": "big", "max-file": "0", "mode": "lossy", "max-buffer-size": "1m", "": "x"})
    violations = validate_log_config(config, "host_config.log_config")
    assert [violation.field for violation in violations] == [
        'host_config.log_config.config["max-size"]',
        'host_config.log_config.config["max-file"]',
        'host_config.log_config.config["mode"]',
        'host_config.log_config.config["max-buffer-size"]',
        'host_config.log_config.config[""]',
    ]
    sentences = [violation.description for violation in violations]
    assert "'lossy' is not a mode; use 'blocking'" in sentences[2]
    assert "belongs to the mode 'non-blocking'; leave it out" in sentences[3]
    assert "'max-size', 'max-file', 'mode' and 'max-buffer-size'" in sentences[4]


def test_the_driver_that_keeps_nothing_takes_no_options() -> None:
    nowhere = LogConfig(type="none")
    assert validate_log_config(nowhere, "f") == []
    assert normalise_log_config(nowhere) == nowhere
    [violation] = validate_log_config(LogConfig(type="none", config={"max-size": "1k"}), "f")
    assert (violation.field, "takes no options" in violation.description) == ("f.config", True)


def test_a_program_that_does_not_wait_has_a_buffer() -> None:
    assert validate_log_config(LogConfig(config={"mode": "blocking"}), "f") == []
    assert log_bounds(LogConfig(config={"mode": "blocking"})).buffer == 0
    asked = LogConfig(config={"mode": "non-blocking", "max-buffer-size": "64k"})
    assert validate_log_config(asked, "f") == []
    assert log_bounds(asked).buffer == 64 * 1024
    assert normalise_log_config(LogConfig(config={"mode": "non-blocking"})).config["max-buffer-size"] == "1m"
    assert log_bounds(LogConfig(config={"mode": "non-blocking"})).buffer == 1024 * 1024


@pytest.mark.parametrize("size", ["0", "-1", "", "big", "1025m", "1.1g", "9" * 5000])
def test_buffers_that_are_refused(size: str) -> None:
    [violation] = validate_log_config(LogConfig(config={"mode": "non-blocking", "max-buffer-size": size}), "f")
    assert violation.field == 'f.config["max-buffer-size"]'
    assert "is not a size from 1 byte to 1 GiB" in violation.description


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "", "x", "1001", "9" * 5000, "1\n"])
def test_counts_that_are_refused(count: str) -> None:
    assert len(validate_log_config(LogConfig(config={"max-file": count}), "f")) == 1


@pytest.mark.parametrize("driver", ["NONE", "local", "syslog", "JSON-FILE"])
def test_other_drivers_are_refused_with_the_way_out(driver: str) -> None:
    [violation] = validate_log_config(LogConfig(type=driver, config={"whatever": "x"}), "host_config.log_config")
    assert violation.field == "host_config.log_config.type"
    assert driver in violation.description
    assert "json-file" in violation.description


def test_defaults_are_bounded_and_the_request_wins() -> None:
    assert normalise_log_config(LogConfig()) == LogConfig(type="json-file", config={"max-size": "10m", "max-file": "5"})
    asked = normalise_log_config(LogConfig(config={"max-size": "1k"}))
    assert asked.config == {"max-size": "1k", "max-file": "5"}
    assert log_bounds(asked) == LogBounds(max_size=1000, max_files=5)
    assert log_bounds(LogConfig()) == LogBounds(max_size=10_000_000, max_files=5)
