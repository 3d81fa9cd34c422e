"""Who the API service is on a host: the user and group `slipway`, or this number where no such account exists.

Both services must mean the same: the executor lets this group connect to its socket, the API service becomes this user.
"""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass

NAME = "slipway"
NUMBER = 65532  # unassigned by Debian, and nobody else's, unlike `nobody`


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int


def service_account() -> Account:
    """The account of that name, else the number as user and group."""
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        return Account(name=str(NUMBER), uid=NUMBER, gid=service_group())
    return Account(name=NAME, uid=entry.pw_uid, gid=entry.pw_gid)


def service_group() -> int:
    """The id of the group of that name, else the number."""
    try:
        return grp.getgrnam(NAME).gr_gid
    except KeyError:
        return NUMBER
