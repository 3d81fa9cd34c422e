"""What the process is: its words, user, directory and domain name, as far as the protocol's own rules do not say."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from common.errors import Violation

_MAX_LABEL = 63  # characters between two dots of a DNS name
_MAX_WORD = 128 * 1024  # bytes with the closing NUL: MAX_ARG_STRLEN, execve(2)
_MAX_ID = 2**31 - 1  # programs take larger uids for negative ones, root among them (CVE-2024-40635)

_DESCRIPTORS = re.compile(
    r"(?:/proc/(?:self|thread-self|[0-9]+)(?:/task/[0-9]+)?/(?:fd|cwd|root|exe|map_files)|/dev/fd)(?:/.*)?", re.DOTALL
)
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f]")


def validate_domainname(domainname: str, field: str) -> list[Violation]:
    """Its labels: the rest of its rule stands in the protocol."""
    if all(len(label) <= _MAX_LABEL for label in domainname.split(".")):
        return []
    why = f"a label between two dots has at most {_MAX_LABEL} characters (RFC 1123)"
    return [Violation(field=field, description=why)]


def validate_words(words: Sequence[str], field: str) -> list[Violation]:
    """The words of a command."""
    return [
        Violation(
            field=f"{field}[{index}]",
            description=f"takes {size} bytes, the kernel allows {_MAX_WORD} for one argument; pass a file instead",
        )
        for index, word in enumerate(words)
        if (size := len(word.encode(errors="surrogatepass")) + 1) > _MAX_WORD
    ]


def validate_user(user: str, field: str) -> list[Violation]:
    """`uid`, `uid:gid`, `name` or `name:group`; whether the name exists is found out at start."""
    parts = user.split(":")
    if len(parts) > 2 or not all(parts) or _UNPRINTABLE.search(user):
        rule = "write uid, uid:gid, name or name:group, without blanks"
        return [Violation(field=field, description=f"{user[:64]!r} is not a user: {rule}")]
    if large := [part for part in parts if part.isdecimal() and _is_too_large(part)]:
        why = f"the id {large[0][:64]} is larger than {_MAX_ID}, the largest there is"
        return [Violation(field=field, description=why)]
    return []


def _is_too_large(number: str) -> bool:
    # Python refuses to read a number of thousands of digits.
    digits = number.lstrip("0")
    return len(digits) > len(str(_MAX_ID)) or int(digits or "0") > _MAX_ID


def validate_working_dir(path: str, field: str) -> list[Violation]:
    """Its form and length are the protocol's rule."""
    if not path.startswith("/") or not _DESCRIPTORS.fullmatch(clean_path(path)):
        return []
    # Such a directory can be one of the host's, through a descriptor the runtime holds (CVE-2024-21626).
    why = f"{path[:64]!r} leads through a process's open files; choose a directory of the image"
    return [Violation(field=field, description=why)]


def clean_path(path: str) -> str:
    """An absolute path without `.`, `..`, doubled and trailing slashes."""
    # normpath keeps two leading slashes, to which POSIX gives a meaning that Linux does not.
    return "/" + posixpath.normpath(path).lstrip("/")
