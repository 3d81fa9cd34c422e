"""User, directory, words, host name."""

from __future__ import annotations

import pytest

from api_service.validation.process import (
    clean_path,
    validate_domainname,
    validate_user,
    validate_words,
    validate_working_dir,
)


def test_no_label_of_a_domain_name_is_too_long() -> None:
    assert validate_domainname(".".join(["a" * 63] * 4), "f") == []
    assert validate_domainname("a." + "a" * 64, "f") != []


@pytest.mark.parametrize(
    "user", ["0", "1000", "1000:1000", "www-data", "www-data:users", "0:users", "2147483647", "0" * 5000, "a" * 256]
)
def test_users_that_are_fine(user: str) -> None:
    assert validate_user(user, "config.user") == []


@pytest.mark.parametrize(
    "user",
    [
        ":",
        "a:",
        ":b",
        "a:b:c",
        "a b",
        "a\n",
        "a\0",
        "2147483648",
        "0:2147483648",
        "4294967295",
        "9" * 200,
        "9" * 5000,
        "a\tb",
    ],
)
def test_users_that_are_refused(user: str) -> None:
    [violation] = validate_user(user, "config.user")
    assert violation.field == "config.user"


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/../b", "//a", "/proc", "/proc/self/fdinfo", "/proc/sys", "/a b", "/" + "a" * 4094]
)
def test_working_dirs_that_are_fine(path: str) -> None:
    assert validate_working_dir(path, "config.working_dir") == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/proc/self/fd/3", "open files"),
        ("/proc/self/fd", "open files"),
        ("/proc/thread-self/fd/9", "open files"),
        ("/proc/1/fd/8/..", "open files"),
        ("/proc/self/task/1/fd/8", "open files"),
        ("//proc/./self//fd/8/x", "open files"),
        ("/a/../proc/self/fd/7\n", "open files"),
    ],
)
def test_working_dirs_that_are_refused(path: str, says: str) -> None:
    [violation] = validate_working_dir(path, "config.working_dir")
    assert violation.field == "config.working_dir"
    assert says in violation.description


@pytest.mark.parametrize(
    ("path", "clean"),
    [("/", "/"), ("//", "/"), ("//a", "/a"), ("/a/", "/a"), ("/a/./b/../c", "/a/c"), ("/..", "/"), ("/../../a", "/a")],
)
def test_clean_paths(path: str, clean: str) -> None:
    assert clean_path(path) == clean


def test_words() -> None:
    assert validate_words(["sh", "-c", "", "a\nb", "x" * 131071], "config.cmd") == []
    violations = validate_words(["sh", "a", "x" * 131072], "config.cmd")
    assert [violation.field for violation in violations] == ["config.cmd[2]"]
