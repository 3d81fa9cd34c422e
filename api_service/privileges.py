"""Give up root for good: another user, no capability in any set, and no way to gain one by exec.

To be called before the process has a second thread, because all of this belongs to a thread and not to the process.
Sources: capabilities(7), credentials(7), prctl(2), PR_SET_NO_NEW_PRIVS(2const)
"""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from common.errors import FailedPrecondition, InvalidArgument
from common.service_account import Account, service_account

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 capabilities each
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def account_for(name: str) -> Account:
    """The user of that name; empty: the service's own account. Raises InvalidArgument."""
    if not name:
        return service_account()
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise InvalidArgument(f"--user {name}: there is no such user; create it with useradd(8)") from error
    if entry.pw_uid == 0:
        raise InvalidArgument(f"--user {name}: has uid 0; name a user without privileges")
    return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)


def prepare_directories(state: Path, sockets: Sequence[Path], account: Account) -> None:
    """Make, as root, what the account is to own: the state directory, and a place for each socket.

    The directory of a socket (/run/slipway) stays root's, so that this service can plant nothing in the executor's
    way: the socket lives in a directory of the account's own beside it, and a symbolic link leads there. Raises
    FailedPrecondition (reason `ADDRESS_IN_USE`).
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own_tree(state, account)
    for path in sockets:
        home = path.with_name(f"{path.name}.d")
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        _own_tree(home, account)
        _link(path, Path(home.name) / path.name)


def _link(path: Path, target: Path) -> None:
    """Whatever else is at `path` belongs to somebody, who may be serving it."""
    if path.is_symlink() and path.readlink() == target:
        return
    try:
        path.symlink_to(target)
    except FileExistsError as error:
        raise FailedPrecondition(
            f"cannot listen on unix://{path}: something else is there; remove it, or choose another with --listen",
            reason="ADDRESS_IN_USE",
        ) from error


def _own_tree(root: Path, account: Account) -> None:
    """Root may have run the service, and made its files, before."""
    for path in (root, *root.iterdir()):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def drop_privileges(account: Account | None) -> None:
    """Become the account (None: stay who we are) without any privilege. Raises FailedPrecondition when any is left."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("privileges belong to threads: drop them before there is a second one")
    libc = ctypes.CDLL(None, use_errno=True)
    if account is not None:
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the last the kernel knows
        os.setgroups([account.gid])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION, 0)), (_Data * 2)())
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _require_none_left()


def capability_sets() -> dict[str, int]:
    """This thread's capability sets by the names of proc_pid_status(5)."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: int(fields[name], 16) for name in _SETS}


def _require_none_left() -> None:
    # The bounding set is a limit and no privilege; without CAP_SETPCAP it cannot be emptied and need not be.
    left = {name: hex(value) for name, value in capability_sets().items() if value and name != "CapBnd"}
    if left or os.geteuid() == 0 or os.getuid() == 0:
        raise FailedPrecondition(
            f"privileges are left after dropping them: uid {os.getuid()}, {left}; this service does not run with any"
        )
