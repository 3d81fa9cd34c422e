"""What the process is: its words, user, directory and host name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from common.errors import Violation

_MAX_HOSTNAME = 63  # bytes; the kernel takes 64 (sethostname(2)), a DNS label 63
_MAX_DOMAINNAME = 253
_MAX_USER = 256
_MAX_PATH = 4095  # bytes, PATH_MAX without its NUL
_MAX_WORD = 128 * 1024  # bytes with the closing NUL: MAX_ARG_STRLEN, execve(2)
_MAX_ID = 2**31 - 1  # programs take larger uids for negative ones, root among them (CVE-2024-40635)

_LABEL = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_DESCRIPTORS = re.compile(r"/proc/(?:self|thread-self|[0-9]+)(?:/task/[0-9]+)?/fd(?:/.*)?", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f]")


def validate_hostname(hostname: str, field: str) -> list[Violation]:
    return _validate_dns_name(hostname, field, what="host name", longest=_MAX_HOSTNAME)


def validate_domainname(domainname: str, field: str) -> list[Violation]:
    return _validate_dns_name(domainname, field, what="domain name", longest=_MAX_DOMAINNAME)


def validate_words(words: Sequence[str], field: str) -> list[Violation]:
    """The words of a command."""
    violations = []
    for index, word in enumerate(words):
        if "\0" in word:
            why = "contains a NUL character, which no argument can hold"
            violations.append(Violation(field=f"{field}[{index}]", description=why))
        elif (size := len(word.encode(errors="surrogatepass")) + 1) > _MAX_WORD:
            why = f"takes {size} bytes, the kernel allows {_MAX_WORD} for one argument; pass a file instead"
            violations.append(Violation(field=f"{field}[{index}]", description=why))
    return violations


def validate_user(user: str, field: str) -> list[Violation]:
    """`uid`, `uid:gid`, `name` or `name:group`; whether the name exists is found out at start."""
    parts = user.split(":")
    if len(parts) > 2 or not all(parts) or _UNPRINTABLE.search(user) or len(user) > _MAX_USER:
        rule = f"write uid, uid:gid, name or name:group, without blanks, in at most {_MAX_USER} characters"
        return [Violation(field=field, description=f"{user[:64]!r} is not a user: {rule}")]
    if large := [part for part in parts if part.isdecimal() and int(part) > _MAX_ID]:
        why = f"the id {large[0]} is larger than {_MAX_ID}, the largest there is"
        return [Violation(field=field, description=why)]
    return []


def validate_working_dir(path: str, field: str) -> list[Violation]:
    if not path.startswith("/"):
        why = f"{path[:64]!r} is not absolute: it must begin with '/'"
    elif "\0" in path:
        why = "contains a NUL character, which no path can hold"
    elif len(path.encode(errors="surrogatepass")) > _MAX_PATH:
        why = f"is longer than {_MAX_PATH} bytes, the longest path there is"
    elif _DESCRIPTORS.fullmatch(clean_path(path)):
        # Such a directory can be one of the host's, through a descriptor the runtime holds (CVE-2024-21626).
        why = f"{path[:64]!r} leads through a process's open files; choose a directory of the image"
    else:
        return []
    return [Violation(field=field, description=why)]


def validate_stop_timeout(seconds: int, field: str) -> list[Violation]:
    if seconds >= -1:
        return []
    why = f"{seconds} is not a time to wait: give seconds from 0 up, or -1 to wait without end"
    return [Violation(field=field, description=why)]


def clean_path(path: str) -> str:
    """An absolute path without `.`, `..`, doubled and trailing slashes."""
    # normpath keeps two leading slashes, to which POSIX gives a meaning that Linux does not.
    return "/" + posixpath.normpath(path).lstrip("/")


def is_dns_name(name: str, *, longest: int) -> bool:
    """Labels of RFC 1123 separated by single dots."""
    return len(name) <= longest and all(_LABEL.fullmatch(label) for label in name.split("."))


def _validate_dns_name(name: str, field: str, *, what: str, longest: int) -> list[Violation]:
    if is_dns_name(name, longest=longest):
        return []
    rule = (
        "labels of a-z, A-Z, 0-9 and inner '-', each at most 63 long, separated by single dots, "
        f"{longest} bytes in all (RFC 1123)"
    )
    return [Violation(field=field, description=f"{name[:64]!r} is not a {what}: it must be {rule}")]
